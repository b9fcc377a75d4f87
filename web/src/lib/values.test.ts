import { expect, it } from "vitest";

import { counted, parseValue, shownValue } from "./values";

it("gives numbers and booleans to the columns that have them, and text to the others", () => {
  expect(parseValue(" 12.5 ", "number")).toBe(12.5);
  expect(parseValue("12", "text")).toBe("12");
  expect(parseValue("twelve", "number")).toBe("twelve");
  expect(parseValue("True", "boolean")).toBe(true);
  expect(parseValue("0x10", undefined)).toBe("0x10");
  expect(parseValue("", "number")).toBe("");
});

it("counts one thing in the singular", () => {
  expect([0, 1, 2000].map((count) => counted(count, "label"))).toEqual(["0 labels", "1 label", `${(2000).toLocaleString()} labels`]);
});

it("shows values to be read", () => {
  const shown = [null, "", "cat", 12, 0.1 + 0.2, true, "2026-11-28 00:28:56.556415", "2026-11-28 00:28:56.5+02:00", "2026-11-28", "at 12:00:00.5"].map(shownValue);
  expect(shown).toEqual([
    "no value",
    "(empty text)",
    "cat",
    "12",
    "0.3",
    "true",
    "2026-11-28 00:28:56",
    "2026-11-28 00:28:56+02:00",
    "2026-11-28",
    "at 12:00:00.5",
  ]);
});
