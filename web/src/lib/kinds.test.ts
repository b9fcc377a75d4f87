import { expect, it } from "vitest";

import { otherKinds } from "./kinds";

it("names what a store holds besides images", () => {
  const spaces = (...modalities: string[]) => modalities.map((modality) => ({ modality }));
  expect(otherKinds(spaces())).toBe("");
  expect(otherKinds(spaces("image", "image"))).toBe("");
  expect(otherKinds(spaces("text", "image", "text"))).toBe("texts");
  expect(otherKinds(spaces("text", "audio"))).toBe("texts and sounds");
});
