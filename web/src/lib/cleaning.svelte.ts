// A queue of what a person should look at: one row after the other, one decision each.

import { api, body, type Schemas } from "./api";
import { page } from "./page.svelte";

export type Queue = Schemas["QueueBody"];
export type Row = Schemas["QueueRowBody"];
export type Decision = Queue["decisions"][number];

const PART = 200; // rows that are read at once

export class Cleaning {
  queues: readonly Queue[] = $state.raw([]);
  kind: Queue["kind"] | null = $state(null);
  rows: readonly Row[] = $state.raw([]);
  total = $state(0);
  place = $state(0);
  decided = $state(0);
  busy = $state(false);
  problem: string | null = $state(null);
  /** What the look of the server left out. */
  note: string | null = $state(null);

  get queue(): Queue | undefined {
    return this.queues.find(({ kind }) => kind === this.kind);
  }

  get row(): Row | undefined {
    return this.rows[this.place];
  }

  async readQueues(): Promise<void> {
    try {
      this.queues = (await body(api.GET("/api/v1/queues"))).queues;
    } catch (error) {
      page.complain(error);
    }
  }

  async open(kind: Queue["kind"], refresh = false): Promise<void> {
    this.kind = kind;
    this.busy = true;
    this.problem = null;
    this.note = null;
    this.rows = [];
    this.place = 0;
    this.decided = 0;
    try {
      const where = page.where ? { where: page.where } : {};
      const query = { limit: PART, refresh, ...where };
      const answer = await body(api.GET("/api/v1/queues/{kind}", { params: { path: { kind }, query } }));
      if (this.kind !== kind) return;
      this.rows = answer.rows;
      this.total = answer.total;
      this.note = answer.note;
    } catch (error) {
      this.problem = error instanceof Error ? error.message : String(error);
    } finally {
      if (this.kind === kind) this.busy = false;
    }
  }

  move(step: number): void {
    this.place = Math.min(Math.max(0, this.place + step), this.rows.length);
  }

  /** Remember a decision. Of copies, `remove` keeps the first one. */
  async decide(decision: Decision): Promise<void> {
    const { row, kind } = this;
    if (!row || kind === null || this.busy || !this.queue?.decisions.includes(decision)) return;
    const all = row.items.map(({ id }) => id);
    const ids = decision === "remove" && all.length > 1 ? all.slice(1) : all;
    if (ids.length === 0) {
      this.move(1);
      return;
    }
    await this.#act(async () => {
      const request = { ids, decision, who: page.name };
      await body(api.POST("/api/v1/queues/{kind}/decisions", { params: { path: { kind } }, body: request }));
      page.say(`${row.items[0]?.name ?? "the item"}: ${decision}`);
      await this.readQueues();
    });
  }

  /** Give every item of the row the suggested label. */
  async accept(): Promise<void> {
    const { row } = this;
    if (!row?.suggested || this.busy) return;
    await this.#act(async () => {
      const ids = row.items.map(({ id }) => id);
      const expected = row.items.map(({ label }) => label);
      const done = await page.label({ ids, column: "label", value: row.suggested, expected });
      if (!done) throw new Error("the label was not set");
    });
  }

  async #act(run: () => Promise<void>): Promise<void> {
    this.busy = true;
    try {
      await run();
      this.decided++;
      this.move(1);
    } catch (error) {
      page.complain(error);
    } finally {
      this.busy = false;
    }
  }

  async undo(): Promise<void> {
    await page.undo();
    this.decided = Math.max(0, this.decided - 1);
    this.move(-1);
    await this.readQueues();
  }

  /** Take out the items on which `remove` was decided; an undo brings them back. */
  async remove(): Promise<void> {
    const { kind } = this;
    if (kind === null) return;
    try {
      const request = { params: { path: { kind } }, body: { who: page.name } };
      const removed = await body(api.POST("/api/v1/queues/{kind}/removal", request));
      if (removed.change === null) page.say("No item of this queue is decided as “Remove”.");
      else if (removed.items === 1) page.changed("1 item was taken out; its file stays");
      else page.changed(`${removed.items.toLocaleString()} items were taken out; their files stay`);
      await this.open(kind);
      await this.readQueues();
    } catch (error) {
      page.complain(error);
    }
  }
}
