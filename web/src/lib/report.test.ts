import { expect, it } from "vitest";

import { binsOf, classesOf, confusionOf, figuresOf, mistakesOf, slicesOf } from "./report";

it("reads figures with and without intervals, and leaves out what is no number", () => {
  const metrics = { accuracy: { value: 0.9, low: 0.8, high: 0.95 }, log_loss: { value: null }, note: "x", error: 0.1 };
  expect(figuresOf({ metrics })).toEqual([
    { name: "accuracy", value: 0.9, low: 0.8, high: 0.95 },
    { name: "error", value: 0.1, low: null, high: null },
  ]);
  expect(figuresOf({})).toEqual([]);
  const named = figuresOf({ metrics: { auroc_ovr_macro: 1, log_loss: 0.5 } }).map(({ name }) => name);
  expect(named).toEqual(["AUROC, mean of the classes", "log loss"]);
});

it("reads the confusion matrix and its largest mistakes", () => {
  const matrix = confusionOf({ confusion: [[5, 1], [3, 4]] });
  expect(matrix).toEqual([[5, 1], [3, 4]]);
  expect(mistakesOf(matrix, ["a", "b"]).map(({ truth, predicted, count }) => [truth, predicted, count])).toEqual([
    ["b", "a", 3],
    ["a", "b", 1],
  ]);
  expect(confusionOf({ confusion: null })).toEqual([]);
});

it("reads the classes", () => {
  expect(classesOf({ per_class: [{ name: "a", support: 2, precision: null, recall: 0.5 }, 3] })).toEqual([
    { name: "a", support: 2, precision: null, recall: 0.5 },
  ]);
});

it("reads slices, also the one of no value, and leaves out what is no figure", () => {
  const slices = [
    { value: "b", items: 7, accuracy: 0.5, accuracy_low: 0.2, accuracy_high: 0.8 },
    { value: null, items: 2, accuracy: null },
  ];
  expect(slicesOf({ slices: { slices } })).toEqual([
    { value: "b", count: 7, score: { name: "accuracy", value: 0.5, low: 0.2, high: 0.8 } },
    { value: null, count: 2, score: null },
  ]);
  expect(slicesOf({ slices: null })).toEqual([]);
});

it("reads the bins of the reliability diagram", () => {
  const reliability = [{ rows: 9, confidence: 0.6, accuracy: 0.5, low: 0.3, high: 0.7 }];
  expect(binsOf({ reliability })).toEqual([{ count: 9, confidence: 0.6, accuracy: 0.5, low: 0.3, high: 0.7 }]);
  expect(binsOf({})).toEqual([]);
});
