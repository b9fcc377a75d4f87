// What the page shows: the store, a view of it, and the items that the query asks for.

import { fromFragment, toFragment, type Mode } from "./address";
import { api, ApiError, body, type Hits, type Schemas, type Store } from "./api";
import { toggled, type Value } from "./filter";
import { kindsOf } from "./kinds";
import { HitList, PagedItems, type ItemList } from "./lists.svelte";
import { messages } from "./messages.svelte";
import { Latest } from "./order";
import { query, type Example, type Scope } from "./query.svelte";

/** What the server sends whenever it changes. */
export type StoreState = Pick<Store, "generation" | "counts" | "writer" | "replica">;

class Page {
  store: Store | null = $state.raw(null);
  fatal: ApiError | null = $state.raw(null);
  mode: Mode = $state("look");
  /** The item whose panel is open. */
  openId: number | null = $state(null);

  list: ItemList = $state.raw(listed());
  hits: Hits | null = $state.raw(null);
  showUnfit = $state(false);
  filterError: ApiError | null = $state.raw(null);
  busy = $state(false);
  /** What was asked for last, until it is shown. */
  shown: Promise<void> = Promise.resolve();

  /** How far the server is with a map that it draws. */
  mapWork: Schemas["MapProgressBody"] | null = $state.raw(null);
  /** Grows with every change of labels, so that what depends on them reads it again. */
  changes = $state(0);
  /** How often the server answered again after a time without it. */
  connections = $state(0);
  /** What the items of the store are. */
  readonly kinds = $derived(kindsOf(this.store?.spaces ?? []));

  #lists = new Latest();
  #stores = new Latest();
  #reading = 0;

  hasColumn(column: string): boolean {
    return this.store?.columns.some(({ name }) => name === column) ?? false;
  }

  // the store

  async start(): Promise<void> {
    const view = fromFragment(location.hash);
    this.mode = view.mode;
    query.restore(view);
    const items = this.refresh(); // it needs nothing of the store
    try {
      this.store = await body(api.GET("/api/v1/store"));
    } catch (error) {
      this.fatal = error instanceof ApiError ? error : new ApiError(0, String(error));
      return;
    }
    this.fatal = null;
    document.title = `${this.store.name} · embedstore`;
    await items;
  }

  async readStore(): Promise<void> {
    const isLatest = this.#stores.begin();
    this.#reading++;
    try {
      const store = await body(api.GET("/api/v1/store"));
      if (isLatest()) this.store = store;
    } catch (error) {
      messages.complain(error);
    } finally {
      this.#reading--;
    }
  }

  /** Go on with a server that answers again; it may have another store now. */
  async reconnect(): Promise<void> {
    const before = this.store?.id;
    this.connections++;
    await this.readStore();
    if (before !== undefined && this.store?.id !== before) location.reload();
    else this.reread();
  }

  /** What the server reports: counts, and who writes. Another generation means that somebody changed something. */
  observe(state: StoreState): void {
    const { store } = this;
    if (!store) return;
    const changed = state.generation !== store.generation;
    this.store = { ...store, ...state };
    if (changed || this.#reading > 0) void this.readStore(); // an answer that is on its way may be older
    if (!changed) return;
    this.changes++;
    this.list.reload();
  }

  /** Read again what a change touches. */
  reread(): void {
    this.changes++;
    this.list.reload();
    void this.readStore();
  }

  // the view, and what it lists

  go(mode: Mode): void {
    this.mode = mode;
    this.remember();
  }

  remember(): void {
    const { mode } = this;
    const { text, facets, order, descending, words, hybrid } = query;
    const fragment = toFragment({ mode, text, facets, order, descending, words, hybrid });
    history.replaceState(null, "", location.pathname + (fragment ? `#${fragment}` : ""));
  }

  /** Show what the query asks for, in the grid. */
  show(): void {
    if (this.mode !== "look") this.go("look");
    void this.refresh();
  }

  /** Read what the query asks for. The old list stays until the new one is here. */
  refresh(): Promise<void> {
    this.shown = this.#refresh();
    return this.shown;
  }

  async #refresh(): Promise<void> {
    const isLatest = this.#lists.begin();
    messages.settle();
    this.busy = true;
    this.remember();
    try {
      if (query.hasSearch) {
        const hits = await query.search();
        if (isLatest()) this.#showHits(hits);
      } else {
        const list = listed();
        await list.first();
        if (isLatest()) this.#showItems(list);
      }
      if (isLatest()) this.filterError = null;
    } catch (error) {
      if (isLatest()) this.#refused(error);
    } finally {
      if (isLatest()) this.busy = false;
    }
  }

  #showItems(list: PagedItems): void {
    this.hits = null;
    this.list = list;
  }

  #showHits(hits: Hits): void {
    this.hits = hits;
    this.showUnfit = false;
    this.#listHits();
  }

  #listHits(): void {
    const hits = this.hits?.hits ?? [];
    this.list = new HitList(this.showUnfit ? hits : hits.filter((hit) => hit.fits));
  }

  #refused(error: unknown): void {
    const filter = error instanceof ApiError && error.status === 400 && query.where !== "" && !query.hasSearch;
    if (filter || (error instanceof ApiError && error.position !== null)) this.filterError = error;
    else messages.complain(error);
  }

  revealUnfit(): void {
    this.showUnfit = true;
    this.#listHits();
  }

  // filters

  /** True where the view shows what the filters leave, and the filters themselves. */
  get isFiltered(): boolean {
    return this.mode === "look" || this.mode === "map";
  }

  filter(text: string): void {
    query.text = text;
    this.#filtered();
  }

  toggleFacet(column: string, value: Value): void {
    query.facets = toggled(query.facets, column, value);
    this.#filtered();
  }

  /** Show what a filter leaves, which an item that is open elsewhere can choose. */
  #filtered(): void {
    if (this.isFiltered) void this.refresh();
    else this.show();
  }

  sort(order: string, descending: boolean): void {
    query.order = order;
    query.descending = descending;
    void this.refresh();
  }

  clearFilters(): void {
    query.clearFilters();
    this.filterError = null;
    void this.refresh();
  }

  /** Show only a selection of the server, without the filters and the search of before. */
  limitTo(scope: Scope): void {
    query.clearFilters();
    query.clearSearch();
    query.scope = scope;
    this.show();
  }

  leaveScope(): void {
    query.scope = null;
    void this.refresh();
  }

  // search

  search(words: string): void {
    query.words = words;
    if (words.trim()) query.image = null;
    this.show();
  }

  searchImage(file: File): void {
    query.clearSearch();
    query.image = file;
    this.show();
  }

  like(example: Example, more: boolean): void {
    const rest = (list: readonly Example[]) => list.filter((other) => other.id !== example.id);
    query.moreLike = more ? [...rest(query.moreLike), example] : rest(query.moreLike);
    query.lessLike = more ? rest(query.lessLike) : [...rest(query.lessLike), example];
    query.image = null;
    this.show();
  }

  unlike(id: number): void {
    query.moreLike = query.moreLike.filter((other) => other.id !== id);
    query.lessLike = query.lessLike.filter((other) => other.id !== id);
    void this.refresh();
  }

  /** Join the ranking by meaning with one by the words in a column; "" ranks by meaning alone. */
  rankBy(column: string): void {
    query.hybrid = column;
    void this.refresh();
  }

  beStrict(strictness: number): void {
    query.strictness = strictness;
    if (query.hasSearch) void this.refresh();
  }

  searchBy(store: boolean): void {
    query.byStore = store;
    if (query.hasSearch) void this.refresh();
  }

  clearSearch(): void {
    query.clearSearch();
    query.cleared++;
    void this.refresh();
  }
}

/** The items that the query asks for, of which none is read yet. */
function listed(): PagedItems {
  return new PagedItems(query.items, (error) => {
    messages.complain(error);
  });
}

export const page = new Page();
