// How long a job of another process still takes, by how fast it went while it was looked at.

import { counted } from "./values";

const LEAST_MS = 2000; // a shorter time says little

interface Seen {
  readonly job: string;
  readonly done: number;
  readonly at: number;
}

export class Pace {
  #first: Seen | null = null;

  /** The seconds that are left, as far as can be told: `done` of `total` parts at a time in milliseconds. */
  secondsLeft(job: string, done: number, total: number, at: number): number | null {
    if (this.#first?.job !== job || done < this.#first.done) this.#first = { job, done, at };
    const { done: before, at: since } = this.#first;
    if (done <= before || at - since < LEAST_MS) return null;
    return ((total - done) * (at - since)) / (done - before) / 1000;
  }
}

/** A time that is left, in words: its first digits are all that is known of it. */
export function aboutTime(seconds: number): string {
  if (seconds < 90) return counted(Math.max(1, Math.round(seconds)), "second");
  if (seconds < 90 * 60) return counted(Math.round(seconds / 60), "minute");
  return counted(Math.round(seconds / 3600), "hour");
}
