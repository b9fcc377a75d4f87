import { expect, it } from "vitest";

import { aboutTime, Pace } from "./pace";

it("tells the time that is left by the pace so far, once that says something", () => {
  const pace = new Pace();
  expect(pace.secondsLeft("7", 100, 1000, 0)).toBeNull();
  expect(pace.secondsLeft("7", 150, 1000, 1000)).toBeNull();
  expect(pace.secondsLeft("7", 200, 1000, 5000)).toBe(40);
  expect(pace.secondsLeft("7", 1000, 1000, 45_000)).toBe(0);
});

it("begins again with another job, or one that began again", () => {
  const pace = new Pace();
  pace.secondsLeft("7", 0, 1000, 0);
  expect(pace.secondsLeft("8", 500, 1000, 10_000)).toBeNull();
  expect(pace.secondsLeft("8", 100, 1000, 20_000)).toBeNull();
  expect(pace.secondsLeft("8", 200, 1000, 30_000)).toBe(80);
});

it("says a time in words", () => {
  expect([0.2, 1, 80, 100, 5000, 6000, 20_000].map(aboutTime)).toEqual([
    "1 second",
    "1 second",
    "80 seconds",
    "2 minutes",
    "83 minutes",
    "2 hours",
    "6 hours",
  ]);
});
