// A queue of what a person should look at: one row after the other, one decision each.

import { api, body, type Schemas } from "./api";
import { Latest } from "./order";
import { edits, type Made } from "./edits.svelte";
import { messages } from "./messages.svelte";
import { query } from "./query.svelte";
import { StepHistory } from "./steps";
import { counted } from "./values";

export type Queue = Schemas["QueueBody"];
export type Row = Schemas["QueueRowBody"];
export type Decision = Queue["decisions"][number];

const PART = 200; // rows that are read at once

/** A row of a queue that was read. */
interface Place {
  readonly rows: readonly Row[];
  readonly place: number;
}

/** A row that was decided; or that rows were taken out. */
type Decided = Place | { readonly rows: null; readonly place: 0 };

class Cleaning {
  queues: readonly Queue[] = $state.raw([]);
  kind: Queue["kind"] | null = $state(null);
  /** The filter of the items that the queue was looked for among. */
  where = $state("");
  rows: readonly Row[] = $state.raw([]);
  total = $state(0);
  place = $state(0);
  decided = $state(0);
  busy = $state(false);
  problem: string | null = $state(null);
  /** What the look of the server left out. */
  note: string | null = $state(null);

  #opens = new Latest();
  #reads = new Latest();
  #steps = new StepHistory<Decided>();

  get queue(): Queue | undefined {
    return this.queues.find(({ kind }) => kind === this.kind);
  }

  get row(): Row | undefined {
    return this.rows[this.place];
  }

  /** Go on where the person was; another filter looks again. */
  async resume(): Promise<void> {
    await this.readQueues();
    if (this.kind !== null && this.where !== query.where) await this.open(this.kind);
  }

  async readQueues(): Promise<void> {
    const isLatest = this.#reads.begin();
    try {
      const { queues } = await body(api.GET("/api/v1/queues"));
      if (isLatest()) this.queues = queues;
    } catch (error) {
      messages.complain(error);
    }
  }

  async open(kind: Queue["kind"], refresh = false): Promise<void> {
    const isLatest = this.#opens.begin();
    this.kind = kind;
    this.where = query.where;
    this.busy = true;
    this.problem = null;
    this.note = null;
    this.rows = [];
    this.place = 0;
    this.#count();
    try {
      const where = this.where ? { where: this.where } : {};
      const params = { path: { kind }, query: { limit: PART, refresh, ...where } };
      const answer = await body(api.GET("/api/v1/queues/{kind}", { params }));
      if (!isLatest()) return;
      this.rows = answer.rows;
      this.total = answer.total;
      this.note = answer.note;
    } catch (error) {
      if (isLatest()) this.problem = error instanceof Error ? error.message : String(error);
    } finally {
      if (isLatest()) this.busy = false;
    }
  }

  move(step: number): void {
    this.place = Math.min(Math.max(0, this.place + step), this.rows.length);
  }

  /** Remember a decision and move on at once. Of copies, `remove` keeps the first one. */
  async decide(decision: Decision): Promise<void> {
    const { row, kind } = this;
    if (!row || kind === null || !this.queue?.decisions.includes(decision)) return;
    const all = row.items.map(({ id }) => id);
    const ids = decision === "remove" && all.length > 1 ? all.slice(1) : all;
    if (ids.length === 0) {
      this.move(1);
      return;
    }
    const request = { ids, decision, who: edits.name };
    const made = edits.change(async () => {
      const path = { kind };
      const { change } = await body(api.POST("/api/v1/queues/{kind}/decisions", { params: { path }, body: request }));
      messages.say(`${row.items[0]?.name ?? "the item"}: ${decision}`);
      return change;
    });
    await this.#step(this.#here(), made);
  }

  /** Give every item of the row the suggested label. */
  async accept(): Promise<void> {
    if (this.row?.suggested) await this.relabel(this.row.suggested);
  }

  /** The labels of the items of the row, where they differ. */
  get labels(): readonly string[] {
    const labels = new Set(this.row?.items.map(({ label }) => label).filter((label) => label != null));
    return labels.size > 1 ? [...labels] : [];
  }

  /** Give every item of the row one label. */
  async relabel(value: string): Promise<void> {
    const { row } = this;
    if (!row) return;
    const ids = row.items.map(({ id }) => id);
    const expected = row.items.map(({ label }) => label);
    const at = this.#here();
    const request = { ids, column: "label", value, expected };
    await this.#step(at, edits.label(request, (made) => void this.#step(at, made)));
  }

  /** Go on to the next row while the change of this one is made; return to it where the server refuses it at the end. */
  async #step({ rows, place }: Place, made: Made): Promise<void> {
    if (this.rows === rows && this.place === place) this.move(1);
    const saved = this.#steps.add({ rows, place }, made);
    this.#count();
    const change = await saved;
    this.#count();
    if (change === null && this.rows === rows && this.place === rows.length) this.place = place;
    await this.readQueues();
  }

  #here(): Place {
    const { rows, place } = this;
    return { rows, place };
  }

  #count(): void {
    this.decided = this.#steps.all.filter(({ rows }) => rows === this.rows).length;
  }

  /** Take back the last decision and return to its row. */
  async undo(): Promise<void> {
    await this.#went(this.#steps.undo(), 0);
  }

  async redo(): Promise<void> {
    await this.#went(this.#steps.redo(), 1);
  }

  async #went(decided: Decided | null, step: number): Promise<void> {
    if (decided?.rows === this.rows) this.place = decided.place + step;
    this.#count();
    await edits.settled();
    if (decided?.rows === null && this.kind !== null) await this.open(this.kind);
    await this.readQueues();
  }

  /** Take out the items on which `remove` was decided; an undo brings them back. */
  async remove(): Promise<void> {
    const { kind } = this;
    if (kind === null) return;
    const made = edits.change(async () => {
      const request = { params: { path: { kind } }, body: { who: edits.name } };
      const removed = await body(api.POST("/api/v1/queues/{kind}/removal", request));
      if (removed.change === null) messages.say("No item of this queue is decided as “Remove”.");
      else if (removed.items === 1) edits.made("1 item was taken out; its file stays", removed.change);
      else edits.made(`${counted(removed.items, "item")} were taken out; their files stay`, removed.change);
      return removed.change;
    });
    await this.#steps.add({ rows: null, place: 0 }, made);
    await this.open(kind);
    await this.readQueues();
  }
}

/** It stays while another view is open. */
export const cleaning = new Cleaning();
