// A session of labelling: a batch of suggestions, one decision per item, then the accuracy and the next batch.

import { api, body, type Schemas } from "./api";
import { extendedBy } from "./choices";
import { Latest } from "./order";
import { edits, type Made } from "./edits.svelte";
import { page } from "./page.svelte";
import { StepHistory } from "./steps";
import { parseValue } from "./values";

export const BATCH = 20;

export interface Entry {
  readonly id: number;
  readonly name: string;
  readonly reason: string | null;
  value: string | null;
}

/** A label that was given: to what, what it replaced, and in which batch. */
interface Given {
  readonly entry: Entry;
  readonly before: string | null;
  readonly value: string;
  readonly batch: readonly Entry[];
}

export type Judgement = Schemas["ReportBody"];
export type Forecast = Schemas["ForecastBody"];

function reasonOf(strategy: string, predicted: string | null, confidence: number | null): string {
  if (predicted === null) return strategy === "typical" ? "typical of a group of items without labels" : strategy;
  return `looks like ${predicted}${confidence === null ? "" : ` (${confidence.toFixed(2)})`}, which is not certain`;
}

class Labelling {
  column = $state("label");
  values: readonly string[] = $state.raw([]);
  batch: Entry[] = $state([]);
  /** Which item of the batch is shown; behind the last one while the labels of a finished batch are saved. */
  place = $state(0);
  given = $state(0);
  judgement: Judgement | null = $state.raw(null);
  /** What more labels are worth, and what it was after the batches before. */
  forecast: Forecast | null = $state.raw(null);
  course: readonly Forecast[] = $state.raw([]);
  /** Why there is no accuracy, in the server's words. */
  noJudgement: string | null = $state(null);
  /** How many items had no label when the batch was chosen; null until the server says it. */
  unlabelled: number | null = $state(null);
  problem: string | null = $state(null);
  busy = $state(false);

  #begins = new Latest();
  #batches = new Latest();
  #judgements = new Latest();
  #reads = new Latest();
  #steps = new StepHistory<Given>();
  #saving = $state(0);

  get current(): Entry | undefined {
    return this.batch[this.place];
  }

  /** How many items have no label now, as far as is known. */
  get remaining(): number | null {
    const labelled = this.batch.filter(({ value }) => value !== null).length;
    return this.unlabelled === null ? null : Math.max(0, this.unlabelled - labelled);
  }

  get isDone(): boolean {
    return this.batch.length > 0 && this.batch.every((entry) => entry.value !== null);
  }

  /** Go on where the person was, or begin. */
  async resume(): Promise<void> {
    if (this.batch.length > 0 || this.busy) await this.reread();
    else await this.begin(this.column);
  }

  async begin(column: string): Promise<void> {
    const isLatest = this.#begins.begin();
    for (const answers of [this.#batches, this.#judgements, this.#reads]) answers.begin(); // those of before are of another column
    this.column = column;
    this.busy = true;
    this.problem = null;
    this.judgement = null;
    this.noJudgement = null;
    this.forecast = null;
    this.course = [];
    this.values = [];
    this.batch = [];
    this.place = 0;
    this.unlabelled = null;
    this.#steps = new StepHistory();
    this.#count();
    try {
      if (!page.hasColumn(column)) await this.#addColumn(column);
      const values = await this.#readValues(column);
      if (!isLatest()) return;
      this.values = extendedBy(this.values, values);
    } catch (error) {
      if (!isLatest()) return;
      this.busy = false;
      this.problem = error instanceof Error ? error.message : String(error);
      return;
    }
    await this.next();
  }

  /** A column exists as soon as one item has a value of it, which may be none. */
  async #addColumn(column: string): Promise<void> {
    const { items } = await body(api.GET("/api/v1/items", { params: { query: { limit: 1 } } }));
    const ids = items.map(({ id }) => id);
    const made = await edits.label({ ids, column, value: null, create_column: true, overwrite: true });
    if (made === null) throw new Error(`there is no column ${column}`);
    await page.readStore();
  }

  async #readValues(column: string): Promise<string[]> {
    const query = { columns: [column] };
    const { facets } = await body(api.GET("/api/v1/facets", { params: { query } }));
    return facets[0]?.values.map(({ value }) => String(value)) ?? [];
  }

  /** Fetch the next items; the accuracy is computed meanwhile. */
  async next(): Promise<void> {
    const isLatest = this.#batches.begin();
    const { column } = this;
    this.busy = true;
    this.problem = null;
    if (this.values.length > 0) void this.judge(); // labels can be given meanwhile
    try {
      const answer = await body(api.GET("/api/v1/suggestions", { params: { query: { column, n: BATCH } } }));
      if (!isLatest()) return;
      this.batch = answer.suggestions.map(({ item, predicted, confidence }) => ({
        id: item.id,
        name: item.name,
        reason: reasonOf(answer.strategy, predicted, confidence),
        value: null,
      }));
      this.unlabelled = answer.unlabelled;
      this.place = 0;
    } catch (error) {
      if (isLatest()) this.problem = error instanceof Error ? error.message : String(error);
    } finally {
      if (isLatest()) this.busy = false;
    }
  }

  /** The accuracy with the labels there are; too few of them are no error. */
  async judge(): Promise<void> {
    const isLatest = this.#judgements.begin();
    const { column } = this;
    let judgement: Judgement | null = null;
    let reason: string | null = null;
    try {
      judgement = await body(api.POST("/api/v1/probe", { body: { column } }));
    } catch (error) {
      reason = error instanceof Error ? error.message : String(error);
    }
    if (!isLatest()) return; // a later one is under way
    this.judgement = judgement;
    this.noJudgement = reason;
    await this.#foresee(column, isLatest);
  }

  /** What more labels are worth; the server refuses where they are too few to tell. */
  async #foresee(column: string, isLatest: () => boolean): Promise<void> {
    let forecast: Forecast | null = null;
    try {
      forecast = await body(api.GET("/api/v1/forecast", { params: { query: { column } } }));
    } catch {
      // the accuracy says already what is missing
    }
    if (!isLatest()) return;
    this.forecast = forecast;
    if (forecast && this.course.at(-1)?.labels !== forecast.labels) this.course = [...this.course, forecast];
  }

  /** Show the label at once and move on; the server gets one label after the other. */
  async give(value: string): Promise<void> {
    const { current: entry, batch, column } = this;
    if (!entry || this.busy) return;
    this.values = extendedBy(this.values, [value]);
    const given = { entry, before: entry.value, value, batch };
    await this.#step(given, this.#send(given, column));
  }

  /** Send a label. To overwrite what somebody else gave meanwhile is a step of its own. */
  #send(given: Given, column: string): Made {
    const { entry, before, value } = given;
    const kind = page.store?.columns.find(({ name }) => name === column)?.kind;
    const expected = [before === null ? null : parseValue(before, kind)];
    const request = { ids: [entry.id], column, value: parseValue(value, kind), expected };
    return edits.label(request, (made) => {
      if (this.column === column) void this.#step({ ...given, before: entry.value }, made);
    });
  }

  async #step(given: Given, made: Made): Promise<void> {
    const { entry, before, value, batch } = given;
    entry.value = value;
    if (this.current === entry) this.#advance();
    this.#saving++;
    const saved = this.#steps.add(given, made);
    this.#count();
    const change = await saved;
    this.#saving--;
    this.#count();
    if (change === null && entry.value === value) this.#show(entry, before, batch);
    if (this.#saving > 0) return;
    if (this.isDone && this.batch === batch && !this.busy) await this.next();
    else await this.reread();
  }

  /** Go to the next item; at the end to one without a label, or behind the last one where all have one. */
  #advance(): void {
    const open = this.batch.findIndex(({ value }) => value === null);
    if (this.place + 1 < this.batch.length) this.place++;
    else this.place = open < 0 ? this.batch.length : open;
  }

  /** Show another value of an item, and the item where nothing else is shown. */
  #show(entry: Entry, value: string | null, batch: readonly Entry[]): void {
    entry.value = value;
    if (this.batch === batch && this.place === batch.length) this.place = batch.indexOf(entry);
  }

  #count(): void {
    this.given = new Set(this.#steps.all.map(({ entry }) => entry.id)).size;
  }

  move(step: number): void {
    this.place = Math.min(Math.max(0, this.place + step), Math.max(0, this.batch.length - 1));
  }

  /** Take back the last label and return to its item. */
  async undo(): Promise<void> {
    await this.#went(this.#steps.undo(), (given) => given.before);
  }

  async redo(): Promise<void> {
    await this.#went(this.#steps.redo(), (given) => given.value);
  }

  async #went(given: Given | null, valueOf: (given: Given) => string | null): Promise<void> {
    this.#count();
    if (given !== null) {
      given.entry.value = valueOf(given);
      if (this.batch === given.batch) this.place = given.batch.indexOf(given.entry);
    }
    await edits.settled();
    await this.reread();
  }

  /** Show what the store has: somebody else may have labelled an item, or taken a label back. */
  async reread(): Promise<void> {
    const { batch, column } = this;
    if (batch.length === 0 || this.#saving > 0) return;
    const isLatest = this.#reads.begin();
    const steps = this.#steps.all.length;
    const request = { ids: batch.map(({ id }) => id), columns: column === "label" ? [] : [column] };
    const answer = await body(api.POST("/api/v1/items", { body: request })).catch(() => null);
    if (answer === null) return; // the next change reads them again
    const hasMoved = batch !== this.batch || this.#saving > 0 || steps !== this.#steps.all.length;
    if (!isLatest() || hasMoved) return;
    const known = new Map(answer.items.map((item) => [item.id, column === "label" ? item.label : item.columns?.[column]]));
    for (const entry of batch) {
      const value = known.get(entry.id) ?? null;
      entry.value = value === null ? null : String(value);
    }
  }
}

/** It stays while another view is open. */
export const labelling = new Labelling();
