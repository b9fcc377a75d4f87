import { expect, it } from "vitest";

import { columnOf, combined, folderClause, folderOf, quoteName, quoteValue, toggled, valuesClause, valuesOf } from "./filter";

it("quotes names and values of strangers", () => {
  expect(quoteName("year")).toBe("year");
  expect(quoteName('a "b" <i>')).toBe('"a ""b"" <i>"');
  expect(quoteValue("O'Hara'); drop table items --")).toBe("'O''Hara''); drop table items --'");
  expect(quoteValue(false)).toBe("false");
  expect(quoteValue(1.5)).toBe("1.5");
});

it("writes one condition per facet", () => {
  expect(valuesClause("label", ["cat"])).toBe("label = 'cat'");
  expect(valuesClause("label", ["cat", "dog"])).toBe("label in ('cat', 'dog')");
  expect(valuesClause("label", [null])).toBe("label is null");
  expect(valuesClause("year", [2020, null])).toBe("(year = 2020 or year is null)");
});

it("filters by single tags", () => {
  expect(valuesOf("tags", "old;it's")).toEqual(["old", "it's"]);
  expect(valuesOf("label", "old;new")).toEqual(["old;new"]);
  expect(valuesClause("tags", ["it's"])).toBe("list_contains(string_split(tags, ';'), 'it''s')");
  expect(valuesClause("tags", ["a", null])).toBe("(list_contains(string_split(tags, ';'), 'a') or tags is null)");
});

it("keeps a text with `or` and a comment together", () => {
  const facets = { split: ["val"] };
  expect(combined("a = 1 or b = 2 -- note", facets)).toBe("(a = 1 or b = 2 -- note\n) and split = 'val'");
  expect(combined("  ", facets)).toBe("split = 'val'");
  expect(combined("a = 1", {})).toBe("a = 1");
  expect(combined("", { split: ["val"], label: ["x"] }, "label")).toBe("split = 'val'");
  expect(combined("", {})).toBe("");
});

it("toggles values and forgets empty facets", () => {
  const one = toggled({}, "label", "cat");
  expect(one).toEqual({ label: ["cat"] });
  expect(toggled(toggled(one, "label", null), "label", "cat")).toEqual({ label: [null] });
  expect(toggled(one, "label", "cat")).toEqual({});
});

it("finds the column that a row of a table is read from", () => {
  expect(columnOf("/data/notes.csv#column=the%20text&row=17")).toBe("the text");
  expect(columnOf("/data/photo#1.jpg")).toBeNull();
  expect(columnOf("/data/column=text/1.jpg")).toBeNull();
  expect(columnOf("column=text.jpg")).toBeNull();
});

it("finds the folder of a uri", () => {
  expect(folderOf("a/b_c/100%.jpg")).toBe("a/b_c/");
  expect(folderOf("x.jpg")).toBe("");
  expect(folderClause("it's/")).toBe("starts_with(uri, 'it''s/')");
});
