// Changes of the store by this person: labels, decisions, undo and redo, one after the other.

import { api, ApiError, body, type Schemas } from "./api";
import { messages } from "./messages.svelte";
import { Sequence } from "./order";
import { page } from "./page.svelte";
import { counted } from "./values";

export type LabelRequest = Schemas["LabelRequest"];
export type Change = Schemas["ChangeBody"];
/** A change that is under way; null if the server refuses it. */
export type Made = Promise<Change | null>;

/** What takes steps back and does them again in a view that remembers them. */
export interface Steps {
  undo(): Promise<void>;
  redo(): Promise<void>;
}

const KEY = "embedstore-who";

class Edits {
  who = $state(localStorage.getItem(KEY) ?? "");
  /** The view that remembers its steps, which Undo and Redo go by while it is open. */
  steps: Steps | null = null;
  #writes = new Sequence();

  get name(): string {
    return this.who.trim() || "unknown";
  }

  rename(who: string): void {
    this.who = who;
    localStorage.setItem(KEY, who);
  }

  /** Make a change after those that were decided before it. */
  change(send: () => Made): Made {
    return this.#writes.run(async () => {
      try {
        return await send();
      } catch (error) {
        messages.complain(error);
        return null;
      }
    });
  }

  /** Wait for the changes that were decided so far. */
  settled(): Promise<void> {
    return this.#writes.run(() => Promise.resolve());
  }

  /**
   * Set a value. A conflict with a change of somebody else is reported, with a way to overwrite it; a view that
   * remembers its steps gets the change that overwrites as `onoverwrite`.
   */
  label(request: LabelRequest, onoverwrite: (made: Made) => void = () => undefined): Made {
    const full = { who: this.name, ...request };
    return this.change(async () => {
      try {
        const { change } = await body(api.POST("/api/v1/labels", { body: full }));
        this.made(`${counted(change.items, "item")}: ${request.column} = ${String(request.value ?? "no value")}`, change);
        return change;
      } catch (error) {
        if (!(error instanceof ApiError) || error.status !== 409 || full.overwrite) throw error;
        this.#offer(error, full, onoverwrite);
        return null;
      }
    });
  }

  #offer(conflict: ApiError, request: LabelRequest, onoverwrite: (made: Made) => void): void {
    const { expected: _expected, digest: _digest, ...rest } = request;
    const run = () => {
      onoverwrite(this.label({ ...rest, overwrite: true }));
    };
    messages.show({ text: conflict.message, cure: conflict.cure, bad: true, action: { label: "Overwrite", run } });
    page.reread();
  }

  /** Report a change, with a way to take this very change back, and read again what it touches. */
  made(text: string, change: Change): void {
    const run = () => void (this.steps ? this.undo() : this.takeBack(Promise.resolve(change)));
    messages.show({ text, bad: false, action: { label: "Undo", run } });
    page.reread();
  }

  async undo(): Promise<void> {
    if (this.steps) await this.steps.undo();
    else await this.takeBack();
  }

  async redo(): Promise<void> {
    if (this.steps) await this.steps.redo();
    else await this.doAgain();
  }

  /** Take back a change once it is made, or the last one of this person. */
  takeBack(made?: Made): Made {
    return this.#again("undo", made);
  }

  /** Do again a change that was taken back, or the last one. */
  doAgain(made?: Made): Made {
    return this.#again("redo", made);
  }

  #again(what: "undo" | "redo", made?: Made): Made {
    return this.change(async () => {
      const known = await made;
      if (known === null) return null; // it was refused, so that there is nothing to take back
      const request = { who: this.name, ...(known ? { change: known.change } : {}) };
      const { change } = await body(api.POST(`/api/v1/${what}`, { body: request }));
      messages.say(`${what === "undo" ? "Undone" : "Done again"}: ${change.column}, ${counted(change.items, "item")}`);
      page.reread();
      return change;
    });
  }
}

export const edits = new Edits();
