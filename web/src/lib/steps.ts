// What a person did in a view, in order: each step can be taken back and done again, also before the server answered.

import { edits, type Made } from "./edits.svelte";

interface Step<What> {
  readonly what: What;
  readonly made: Made;
}

export class StepHistory<What> {
  #done: Step<What>[] = [];
  #undone: Step<What>[] = [];

  /** Remember a step whose change is under way. One that is refused was none. */
  async add(what: What, made: Made): Made {
    const step = { what, made };
    this.#done.push(step);
    this.#undone = [];
    const change = await made;
    if (change === null) this.#done = this.#done.filter((other) => other !== step);
    return change;
  }

  /** Take back the last step at once; without one, the last change that this person made elsewhere. */
  undo(): What | null {
    const step = this.#done.pop();
    const made = edits.takeBack(step?.made);
    if (!step) return null;
    this.#undone.push({ what: step.what, made });
    return step.what;
  }

  /** Do again the last step that was taken back; without one, the last change that this person took back elsewhere. */
  redo(): What | null {
    const step = this.#undone.pop();
    const made = edits.doAgain(step?.made);
    if (!step) return null;
    this.#done.push({ what: step.what, made });
    return step.what;
  }

  /** What was done and not taken back. */
  get all(): readonly What[] {
    return this.#done.map(({ what }) => what);
  }
}
