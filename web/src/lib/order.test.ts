import { expect, it } from "vitest";

import { Latest, Sequence } from "./order";

const later = (ms: number) => new Promise((resume) => setTimeout(resume, ms));

it("runs work in the order of the calls, however long each takes and whether it fails or not", async () => {
  const sequence = new Sequence();
  const done: string[] = [];
  const work = (name: string, ms: number, fails = false) =>
    sequence.run(async () => {
      await later(ms);
      done.push(name);
      if (fails) throw new Error(name);
      return name;
    });
  const results = await Promise.allSettled([work("a", 20), work("b", 10, true), work("c", 0)]);
  expect(done).toEqual(["a", "b", "c"]);
  expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
});

it("begins nothing before what came earlier is settled", async () => {
  const sequence = new Sequence();
  let settled = false;
  void sequence.run(async () => {
    await later(10);
    settled = true;
  });
  expect(await sequence.run(() => Promise.resolve(settled))).toBe(true);
});

it("takes the answer to the last question alone", () => {
  const latest = new Latest();
  const first = latest.begin();
  expect(first()).toBe(true);
  const second = latest.begin();
  expect([first(), second()]).toEqual([false, true]);
});
