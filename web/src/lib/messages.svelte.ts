// What the page reports at its edge: what was done, or what went wrong.

import { ApiError, isAbort } from "./api";

export interface Message {
  readonly text: string;
  readonly cure?: string | null;
  readonly bad: boolean;
  readonly action?: { readonly label: string; readonly run: () => void };
}

class Messages {
  current: Message | null = $state.raw(null);

  show(message: Message): void {
    this.current = message;
  }

  say(text: string): void {
    this.show({ text, bad: false });
  }

  /** Report an error; a request that the page itself ended is none. */
  complain(error: unknown): void {
    if (isAbort(error)) return;
    const known = error instanceof ApiError;
    this.show({ text: known ? error.message : String(error), cure: known ? error.cure : null, bad: true });
  }

  /** Take an error away that says nothing of what is asked for now; one with an offer stays. */
  settle(): void {
    if (this.current?.bad && !this.current.action) this.close();
  }

  close(): void {
    this.current = null;
  }
}

export const messages = new Messages();
