// A session of labelling: a batch of suggestions, one decision per item, then the accuracy and the next batch.

import { api, body, type Schemas } from "./api";
import { extendedBy } from "./choices";
import { page } from "./page.svelte";
import { parseValue } from "./values";

export const BATCH = 20;

export interface Entry {
  readonly id: number;
  readonly name: string;
  readonly reason: string | null;
  readonly before: string | null;
  value: string | null;
}

export type Judgement = Schemas["ReportBody"];
export type Forecast = Schemas["ForecastBody"];

function reasonOf(strategy: string, predicted: string | null, confidence: number | null): string {
  if (predicted === null) return strategy === "typical" ? "typical of a group of items without labels" : strategy;
  return `looks like ${predicted}${confidence === null ? "" : ` (${confidence.toFixed(2)})`}, which is not certain`;
}

export class Labelling {
  column = $state("label");
  values: readonly string[] = $state.raw([]);
  batch: Entry[] = $state([]);
  place = $state(0);
  given = $state(0);
  judgement: Judgement | null = $state.raw(null);
  /** What more labels are worth, and what it was after the batches before. */
  forecast: Forecast | null = $state.raw(null);
  course: readonly Forecast[] = $state.raw([]);
  /** Why there is no accuracy, in the server's words. */
  noJudgement: string | null = $state(null);
  remaining = $state(0);
  problem: string | null = $state(null);
  busy = $state(false);

  #saved: Promise<void> = Promise.resolve();
  #waiting = 0;
  #judgements = 0;

  get current(): Entry | undefined {
    return this.batch[this.place];
  }

  get isDone(): boolean {
    return this.batch.length > 0 && this.batch.every((entry) => entry.value !== null);
  }

  async begin(column: string): Promise<void> {
    this.column = column;
    this.judgement = null;
    this.forecast = null;
    this.course = [];
    this.values = [];
    this.batch = [];
    try {
      if (!page.hasColumn(column)) await this.#addColumn();
      await this.#readValues();
    } catch (error) {
      page.complain(error);
      return;
    }
    await this.next();
  }

  /** A column exists as soon as one item has a value of it, which may be none. */
  async #addColumn(): Promise<void> {
    const { items } = await body(api.GET("/api/v1/items", { params: { query: { limit: 1 } } }));
    const ids = items.map(({ id }) => id);
    const request = { ids, column: this.column, value: null, create_column: true, overwrite: true, who: page.name };
    await body(api.POST("/api/v1/labels", { body: request }));
    await page.readStore();
  }

  async #readValues(): Promise<void> {
    const query = { columns: [this.column] };
    const { facets } = await body(api.GET("/api/v1/facets", { params: { query } }));
    const names = facets[0]?.values.map(({ value }) => String(value)) ?? [];
    this.values = extendedBy(this.values, names);
  }

  /** Fetch the next items; the accuracy is computed meanwhile. */
  async next(): Promise<void> {
    this.busy = true;
    this.problem = null;
    void this.judge(); // labels can be given meanwhile
    try {
      const answer = await body(
        api.GET("/api/v1/suggestions", { params: { query: { column: this.column, n: BATCH } } }),
      );
      this.batch = answer.suggestions.map(({ item, predicted, confidence }) => ({
        id: item.id,
        name: item.name,
        reason: reasonOf(answer.strategy, predicted, confidence),
        before: null,
        value: null,
      }));
      this.remaining = answer.unlabelled;
      this.place = 0;
    } catch (error) {
      this.problem = error instanceof Error ? error.message : String(error);
    } finally {
      this.busy = false;
    }
  }

  /** The accuracy with the labels there are; too few of them are no error. */
  async judge(): Promise<void> {
    const number = ++this.#judgements;
    let judgement: Judgement | null = null;
    let reason: string | null = null;
    try {
      judgement = await body(api.POST("/api/v1/probe", { body: { column: this.column } }));
    } catch (error) {
      reason = error instanceof Error ? error.message : String(error);
    }
    if (number !== this.#judgements) return; // a later one is under way
    this.judgement = judgement;
    this.noJudgement = reason;
    await this.#foresee(number);
  }

  /** What more labels are worth; the server refuses where they are too few to tell. */
  async #foresee(number: number): Promise<void> {
    let forecast: Forecast | null = null;
    try {
      forecast = await body(api.GET("/api/v1/forecast", { params: { query: { column: this.column } } }));
    } catch {
      // the accuracy says already what is missing
    }
    if (number !== this.#judgements) return;
    this.forecast = forecast;
    if (forecast && this.course.at(-1)?.labels !== forecast.labels) this.course = [...this.course, forecast];
  }

  /** Show the label at once and move on; the server gets one label after the other. */
  async give(value: string): Promise<void> {
    const entry = this.current;
    if (!entry || this.busy) return;
    const shown = entry.value ?? entry.before;
    this.#set(entry, value);
    this.values = extendedBy(this.values, [value]);
    this.move(1);
    this.#waiting++;
    this.#saved = this.#saved.then(() => this.#save(entry, value, shown));
    await this.#saved;
    this.#waiting--;
    if (this.#waiting === 0 && this.isDone) await this.next();
  }

  async #save(entry: Entry, value: string, shown: string | null): Promise<void> {
    const kind = page.store?.columns.find(({ name }) => name === this.column)?.kind;
    const done = await page.label({
      ids: [entry.id],
      column: this.column,
      value: parseValue(value, kind),
      expected: [shown === null ? null : parseValue(shown, kind)],
    });
    if (!done) this.#set(entry, shown);
  }

  #set(entry: Entry, value: string | null): void {
    if (entry.value === null && value !== null) this.given++;
    if (entry.value !== null && value === null) this.given--;
    entry.value = value;
  }

  move(step: number): void {
    this.place = Math.min(Math.max(0, this.place + step), Math.max(0, this.batch.length - 1));
  }

  async undo(): Promise<void> {
    await this.#saved;
    await page.undo();
    const last = this.batch.findLastIndex((entry, place) => entry.value !== null && place <= this.place);
    const entry = this.batch[last];
    if (entry) {
      this.#set(entry, null);
      this.place = last;
    }
  }
}
