// The order of what is done: changes reach the server in the order of the keys, and late answers are not shown.

/** Runs one piece of work after the other, in the order of the calls. One that fails does not stop the next. */
export class Sequence {
  #last: Promise<unknown> = Promise.resolve();

  run<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => undefined);
    return result;
  }
}

/** Tells the answer to the latest question from those to earlier ones, in whatever order they arrive. */
export class Latest {
  #turn = 0;

  /** Begin a turn; the function that is returned is true until the next one begins. */
  begin(): () => boolean {
    const turn = ++this.#turn;
    return () => turn === this.#turn;
  }
}
