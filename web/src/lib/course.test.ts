import { expect, it } from "vitest";

import { courseOf, scaleOf } from "./course";

const estimate = (value: number | null) => ({ value, low: value === null ? null : value - 0.1, high: value === null ? null : value + 0.1 });

it("lists what was measured by labels, and what is expected at twice the last labels", () => {
  const course = [
    { labels: 40, accuracy: estimate(0.6), at_twice: estimate(0.7) },
    { labels: 20, accuracy: estimate(0.5), at_twice: estimate(null) },
    { labels: 60, accuracy: estimate(null), at_twice: estimate(0.8) },
  ];
  expect(courseOf(course).map(({ labels, value, expected }) => [labels, value, expected])).toEqual([
    [20, 0.5, false],
    [40, 0.6, false],
    [120, 0.8, true],
  ]);
  expect(courseOf([])).toEqual([]);
});

it("places the ends of intervals at the edges, and a single point in the middle", () => {
  const points = courseOf([{ labels: 20, accuracy: estimate(0.5), at_twice: estimate(0.7) }]);
  const at = scaleOf(points, 100, 50);
  expect(at(20, 0.4)).toEqual([0, 50]);
  expect(at(40, 0.8)[0]).toBe(100);
  expect(at(40, 0.8)[1]).toBeCloseTo(0);
  const alone = { labels: 5, value: 1, low: 1, high: 1, expected: false };
  expect(scaleOf([alone], 100, 50)(5, 1)).toEqual([50, 25]);
});
