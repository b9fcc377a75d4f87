import { expect, it } from "vitest";

import { parseValue } from "./values";

it("gives numbers and booleans to the columns that have them, and text to the others", () => {
  expect(parseValue(" 12.5 ", "number")).toBe(12.5);
  expect(parseValue("12", "text")).toBe("12");
  expect(parseValue("twelve", "number")).toBe("twelve");
  expect(parseValue("True", "boolean")).toBe(true);
  expect(parseValue("0x10", undefined)).toBe("0x10");
  expect(parseValue("", "number")).toBe("");
});
