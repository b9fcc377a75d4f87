// What the grid shows: items in an order, page by page from the server, or the hits of a search.

import { api, body, isAbort, type Hit, type Item, type Schemas } from "./api";
import { Latest } from "./order";
import { pagesOf, type Range } from "./windowing";

export interface ListEntry {
  readonly id: number;
  readonly name: string;
  readonly uri: string;
  readonly label?: string | null;
  readonly columns?: Record<string, unknown>;
  readonly score?: number;
  readonly fits?: boolean;
}

export interface ItemList {
  readonly total: number;
  /** Changes whenever `at` may give something else. */
  readonly version: number;
  at(index: number): ListEntry | undefined;
  /** The ids between two places, both included, also of items that are not here yet; null if they cannot be read. */
  ids(from: number, to: number): Promise<number[] | null>;
  ensure(range: Range): void;
  reload(): void;
}

export interface ItemQuery {
  readonly where: string;
  readonly order: string;
  readonly descending: boolean;
  readonly selection: string | null;
}

export const PAGE = 120;
const KEPT_PAGES = 60;

export class PagedItems implements ItemList {
  total = $state(0);
  version = $state(0);
  /** False until the first page is here. */
  known = $state(false);
  generation = 0;
  #pages = new Map<number, Item[]>();
  #stale = new Set<number>();
  #pending = new Map<number, AbortController>();
  #range: Range = { start: 0, end: PAGE };

  constructor(
    readonly query: ItemQuery,
    readonly onerror: (error: unknown) => void,
  ) {}

  at(index: number): Item | undefined {
    return this.#pages.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  async ids(from: number, to: number): Promise<number[] | null> {
    const range = { start: Math.min(from, to), end: Math.max(from, to) + 1 };
    const ids: number[] = [];
    try {
      for (const page of pagesOf(range, PAGE)) {
        const isHere = this.#pages.has(page) && !this.#stale.has(page);
        const items = isHere ? (this.#pages.get(page) ?? []) : (await this.#read(page)).items;
        const first = page * PAGE;
        ids.push(...items.slice(Math.max(0, range.start - first), range.end - first).map((item) => item.id));
      }
    } catch (error) {
      this.onerror(error);
      return null;
    }
    return ids;
  }

  ensure(range: Range): void {
    this.#range = range;
    const pages = pagesOf(range, PAGE);
    for (const [page, controller] of this.#pending) {
      if (!pages.includes(page)) this.#abandon(page, controller);
    }
    for (const page of pages) {
      const missing = !this.#pages.has(page) || this.#stale.has(page);
      if (missing && !this.#pending.has(page)) void this.#load(page);
    }
  }

  /** Read again what is here, and ask again for what is on its way: that answer may be older than the change. */
  reload(): void {
    for (const page of this.#pages.keys()) this.#stale.add(page);
    for (const [page, controller] of this.#pending) this.#abandon(page, controller);
    this.ensure(this.#range);
  }

  #abandon(page: number, controller: AbortController): void {
    this.#pending.delete(page); // now, so that it can be asked for again at once
    controller.abort();
  }

  async first(): Promise<void> {
    await this.#load(0, true);
  }

  async #load(page: number, strict = false): Promise<void> {
    const controller = new AbortController();
    this.#pending.set(page, controller);
    try {
      const part = await this.#read(page, controller.signal);
      controller.signal.throwIfAborted();
      this.#keep(page, part.items);
      this.total = part.total;
      this.known = true;
      if (this.generation !== 0 && part.generation !== this.generation) {
        for (const other of this.#pages.keys()) if (other !== page) this.#stale.add(other);
      }
      this.generation = part.generation;
      this.version++;
    } catch (error) {
      if (strict) throw error;
      if (!isAbort(error)) this.onerror(error);
    } finally {
      if (this.#pending.get(page) === controller) this.#pending.delete(page);
    }
  }

  #read(page: number, signal?: AbortSignal): Promise<Schemas["ItemsBody"]> {
    const { where, order, descending, selection } = this.query;
    const query = {
      ...(where ? { where } : {}),
      ...(order ? { order, descending } : {}),
      ...(selection ? { selection } : {}),
      offset: page * PAGE,
      limit: PAGE,
    };
    return body(api.GET("/api/v1/items", { params: { query }, ...(signal ? { signal } : {}) }));
  }

  #keep(page: number, items: Item[]): void {
    this.#pages.delete(page);
    this.#pages.set(page, items);
    this.#stale.delete(page);
    for (const old of this.#pages.keys()) {
      if (this.#pages.size <= KEPT_PAGES) break;
      this.#pages.delete(old);
    }
  }
}

export class HitList implements ItemList {
  version = $state(0);
  #hits: ListEntry[];
  #reads = new Latest();

  constructor(hits: readonly Hit[]) {
    this.#hits = [...hits];
  }

  get total(): number {
    return this.#hits.length;
  }

  at(index: number): ListEntry | undefined {
    return this.#hits[index];
  }

  ids(from: number, to: number): Promise<number[]> {
    const hits = this.#hits.slice(Math.min(from, to), Math.max(from, to) + 1);
    return Promise.resolve(hits.map((hit) => hit.id));
  }

  ensure(): void {
    // all hits are here
  }

  /** Read the labels again after a change. */
  reload(): void {
    const ids = this.#hits.map((hit) => hit.id);
    if (ids.length > 0) void this.#refresh(ids).catch(() => undefined); // the next change reads them again
  }

  async #refresh(ids: number[]): Promise<void> {
    const isLatest = this.#reads.begin();
    const fresh = await body(api.POST("/api/v1/items", { body: { ids, columns: [] } }));
    if (!isLatest()) return;
    const byId = new Map(fresh.items.map((item) => [item.id, item]));
    this.#hits = this.#hits.flatMap((hit) => {
      const item = byId.get(hit.id);
      return item ? [{ ...hit, label: item.label }] : [];
    });
    this.version++;
  }
}
