import { expect, it } from "vitest";

import { kindsOf } from "./kinds";

const kinds = (...modalities: string[]) => kindsOf(modalities.map((modality) => ({ modality })));

it("names what a store holds", () => {
  expect(kinds().noun).toBe("items");
  expect(kinds("image", "image").noun).toBe("pictures");
  expect(kinds("text", "image", "text").noun).toBe("texts and pictures");
});

it("tells stores of pictures alone from others, and finds sounds", () => {
  expect(kinds()).toMatchObject({ hasPictures: true, onlyPictures: true, hasSounds: false });
  expect(kinds("image")).toMatchObject({ onlyPictures: true, hasSounds: false });
  expect(kinds("image", "text")).toMatchObject({ hasPictures: true, onlyPictures: false, hasSounds: false });
  expect(kinds("text")).toMatchObject({ hasPictures: false, onlyPictures: false, hasSounds: false });
  expect(kinds("image", "audio")).toMatchObject({ onlyPictures: false, hasSounds: true });
});
