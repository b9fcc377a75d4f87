// The state of the page, and what a person does with it.

import { fromFragment, toFragment, type Mode } from "./address";
import { api, ApiError, body, isAbort, type Hits, type Schemas, type Store } from "./api";
import { combined, toggled, type Facets, type Value } from "./filter";
import { HitList, PagedItems, type ItemList, type ListEntry } from "./lists.svelte";
import { Latest, Sequence } from "./order";
import * as select from "./selection";
import { counted } from "./values";

export interface Message {
  readonly text: string;
  readonly cure?: string | null;
  readonly bad: boolean;
  readonly action?: { readonly label: string; readonly run: () => void };
}

/** A part of the store that everything is limited to: what was selected before. */
export interface Scope {
  readonly handle: string;
  readonly label: string;
  readonly count: number;
}

export interface Example {
  readonly id: number;
  readonly name: string;
}

/** What the server sends whenever it changes. */
export type StoreState = Pick<Store, "generation" | "counts" | "writer" | "replica">;

export type LabelRequest = Schemas["LabelRequest"];
export type Change = Schemas["ChangeBody"];

/** What takes steps back and does them again in a view that remembers them. */
export interface Steps {
  undo(): Promise<void>;
  redo(): Promise<void>;
}

class Page {
  store: Store | null = $state.raw(null);
  fatal: ApiError | null = $state.raw(null);
  mode: Mode = $state("look");

  text = $state("");
  facets: Facets = $state.raw({});
  order = $state("");
  descending = $state(false);
  filterError: ApiError | null = $state.raw(null);
  scope: Scope | null = $state.raw(null);

  words = $state("");
  moreLike: readonly Example[] = $state.raw([]);
  lessLike: readonly Example[] = $state.raw([]);
  image: File | null = $state.raw(null);
  strictness = $state(0.5);
  /** The column of texts whose words count, too; "" for none. */
  hybrid = $state("");
  /** True where searches go by the store itself, though the server has a replica. */
  byStore = $state(false);
  hits: Hits | null = $state.raw(null);
  showUnfit = $state(false);

  list: ItemList = $state.raw(new PagedItems({ where: "", order: "", descending: false, selection: null }, noted));
  busy = $state(false);
  selection: select.Selection = $state.raw(select.EMPTY);
  openId: number | null = $state(null);
  message: Message | null = $state.raw(null);
  /** How far the server is with a map that it draws. */
  mapWork: Schemas["MapProgressBody"] | null = $state.raw(null);
  /** Grows with every change of labels, so that what depends on them reads it again. */
  changes = $state(0);
  who = $state(localStorage.getItem("embedstore-who") ?? "");

  /** The selection that is under way; what is done with the selection waits for it. */
  selecting: Promise<void> | null = $state.raw(null);
  /** Grows when the filters or the search are cleared, so that what was typed and not applied goes, too. */
  cleared = $state(0);
  /** How often the server answered again after a time without it. */
  connections = $state(0);
  /** The view that remembers its steps, which Undo and Redo go by while it is open. */
  steps: Steps | null = null;

  #lists = new Latest();
  #stores = new Latest();
  #reading = 0;
  #selections = new Latest();
  #shown: Promise<void> = Promise.resolve();
  #writes = new Sequence();

  get where(): string {
    return combined(this.text, this.facets);
  }

  get hasQuery(): boolean {
    return this.words.trim() !== "" || this.moreLike.length + this.lessLike.length > 0 || this.image !== null;
  }

  /** True where a text is searched for, so that its words can count. */
  get ranksWords(): boolean {
    return this.words.trim() !== "" && this.image === null;
  }

  hasColumn(column: string): boolean {
    return this.store?.columns.some(({ name }) => name === column) ?? false;
  }

  async start(): Promise<void> {
    const view = fromFragment(location.hash);
    this.mode = view.mode;
    this.text = view.text;
    this.facets = view.facets;
    this.order = view.order;
    this.descending = view.descending;
    this.words = view.words;
    this.hybrid = view.hybrid;
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
      this.complain(error);
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

  go(mode: Mode): void {
    this.mode = mode;
    this.remember();
  }

  remember(): void {
    const fragment = toFragment(this);
    history.replaceState(null, "", location.pathname + (fragment ? `#${fragment}` : ""));
  }

  /** Show what the filter and the query ask for. The old list stays until the new one is here. */
  refresh(): Promise<void> {
    this.#shown = this.#refresh();
    return this.#shown;
  }

  async #refresh(): Promise<void> {
    const isLatest = this.#lists.begin();
    this.busy = true;
    this.remember();
    try {
      if (this.hasQuery) {
        const hits = await this.#search();
        if (isLatest()) this.#showHits(hits);
      } else {
        const list = this.#items();
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
    this.everything = false;
  }

  #items(): PagedItems {
    const { where, order, descending } = this;
    return new PagedItems({ where, order, descending, selection: this.scope?.handle ?? null }, noted);
  }

  #refused(error: unknown): void {
    const filter = error instanceof ApiError && error.status === 400 && this.where !== "" && !this.hasQuery;
    if (filter || (error instanceof ApiError && error.position !== null)) this.filterError = error;
    else this.complain(error);
  }

  #showHits(hits: Hits): void {
    this.hits = hits;
    this.showUnfit = false;
    this.#listHits();
  }

  #listHits(): void {
    const hits = this.hits?.hits ?? [];
    this.list = new HitList(this.showUnfit ? hits : hits.filter((hit) => hit.fits));
    this.everything = false;
  }

  revealUnfit(): void {
    this.showUnfit = true;
    this.#listHits();
  }

  searchBody(): Schemas["SearchBody"] {
    const { where, words, hybrid, moreLike, lessLike, strictness } = this;
    return {
      k: 200,
      strictness,
      more_like: moreLike.map((example) => example.id),
      less_like: lessLike.map((example) => example.id),
      ...(words.trim() ? { words: words.trim(), ...(hybrid ? { hybrid } : {}) } : {}),
      ...(this.byStore ? { replica: "" } : {}),
      ...(where ? { where } : {}),
      ...(this.scope ? { selection: this.scope.handle } : {}),
    };
  }

  async #search(): Promise<Hits> {
    if (this.image === null) return body(api.POST("/api/v1/search", { body: this.searchBody() }));
    const { image, where, strictness } = this;
    const selection = this.scope?.handle;
    const query = {
      k: 200,
      strictness,
      ...(where ? { where } : {}),
      ...(selection ? { selection } : {}),
      ...(this.byStore ? { replica: "" } : {}),
    };
    return body(
      api.POST("/api/v1/search/image", {
        params: { query },
        body: image as never, // the bytes of the file are the body
        bodySerializer: (file: unknown) => file as Blob,
        headers: { "content-type": "application/octet-stream" },
      }),
    );
  }

  // filters

  filter(text: string): void {
    this.text = text;
    void this.refresh();
  }

  toggleFacet(column: string, value: Value): void {
    this.facets = toggled(this.facets, column, value);
    void this.refresh();
  }

  sort(order: string, descending: boolean): void {
    this.order = order;
    this.descending = descending;
    void this.refresh();
  }

  clearFilters(): void {
    this.text = "";
    this.facets = {};
    this.scope = null;
    this.filterError = null;
    this.cleared++;
    void this.refresh();
  }

  // search

  search(words: string): void {
    this.words = words;
    if (words.trim()) this.image = null;
    void this.refresh();
  }

  /** Join the ranking by meaning with one by the words in a column; "" ranks by meaning alone. */
  rankBy(column: string): void {
    this.hybrid = column;
    void this.refresh();
  }

  /** How strict the cut-off is below which a hit does not fit: 0 takes everything. */
  beStrict(strictness: number): void {
    this.strictness = strictness;
    if (this.hasQuery) void this.refresh();
  }

  searchBy(store: boolean): void {
    this.byStore = store;
    if (this.hasQuery) void this.refresh();
  }

  searchImage(file: File): void {
    this.image = file;
    this.words = "";
    this.moreLike = [];
    this.lessLike = [];
    this.go("look");
    void this.refresh();
  }

  like(example: Example, more: boolean): void {
    const rest = (list: readonly Example[]) => list.filter((other) => other.id !== example.id);
    this.moreLike = more ? [...rest(this.moreLike), example] : rest(this.moreLike);
    this.lessLike = more ? rest(this.lessLike) : [...rest(this.lessLike), example];
    this.image = null;
    if (this.mode !== "look") this.go("look");
    void this.refresh();
  }

  unlike(id: number): void {
    this.moreLike = this.moreLike.filter((other) => other.id !== id);
    this.lessLike = this.lessLike.filter((other) => other.id !== id);
    void this.refresh();
  }

  clearSearch(): void {
    this.cleared++;
    this.words = "";
    this.moreLike = [];
    this.lessLike = [];
    this.image = null;
    void this.refresh();
  }

  // selection

  /** True where the selection of the server is just what the grid shows. */
  everything = $state(false);

  select(selection: select.Selection): void {
    this.#selections.begin(); // one that is on its way comes too late
    this.selecting = null;
    this.selection = selection;
    this.everything = false;
  }

  clearSelection(): void {
    this.select(select.EMPTY);
  }

  selectAll(): Promise<void> {
    return this.selectWhenKnown(() => this.#everything(), true);
  }

  /** Select what is not known yet. Nothing is selected meanwhile, so that nobody labels what was selected before. */
  selectWhenKnown(find: () => Promise<select.Selection>, everything = false): Promise<void> {
    this.clearSelection();
    const isLatest = this.#selections.begin();
    this.selecting = (async () => {
      try {
        const selection = await find();
        if (!isLatest()) return;
        this.selection = selection;
        this.everything = everything;
      } catch (error) {
        this.complain(error);
      } finally {
        if (isLatest()) this.selecting = null;
      }
    })();
    return this.selecting;
  }

  /** All that is shown once the list is here that was asked for last. */
  async #everything(): Promise<select.Selection> {
    await this.#shown;
    if (this.hits) {
      const ids = Array.from({ length: this.list.total }, (_, index) => this.list.at(index)?.id);
      return select.extended(select.EMPTY, ids.filter((id) => id !== undefined));
    }
    const within = this.scope ? { within: this.scope.handle } : {};
    const answer = await this.newSelection({ where: this.where || "true", ...within });
    return select.ofHandle(answer.handle, answer.count);
  }

  newSelection(request: Schemas["SelectionRequest"]): Promise<Schemas["SelectionBody"]> {
    return body(api.POST("/api/v1/selections", { body: request }));
  }

  /** The handle of what is selected; single items are sent to the server first. */
  async handle(): Promise<Scope> {
    await this.selecting;
    const { selection } = this;
    if (selection.count === 0) throw new ApiError(0, "nothing is selected", "select items first");
    const label = `${selection.count.toLocaleString()} selected`;
    if (selection.handle !== null) return { handle: selection.handle, label, count: selection.count };
    const answer = await this.newSelection({ ids: [...selection.ids] });
    return { handle: answer.handle, label, count: answer.count };
  }

  /** The ids of a selection of the server, in the order of addition. */
  async idsOf(handle: string): Promise<number[]> {
    const ids: number[] = [];
    for (let total = 1; ids.length < total; ) {
      const query = { selection: handle, offset: ids.length, limit: 1000 };
      const part = await body(api.GET("/api/v1/items", { params: { query } }));
      if (part.items.length === 0) break;
      ids.push(...part.items.map((item) => item.id));
      total = part.total;
    }
    return ids;
  }

  async limitToSelection(): Promise<void> {
    try {
      this.scope = await this.handle();
      this.clearSelection();
      if (this.mode !== "look") this.go("look");
      await this.refresh();
    } catch (error) {
      this.complain(error);
    }
  }

  /** Show only a selection of the server, without the filters of before. */
  limitTo(scope: Scope): void {
    this.cleared++;
    this.text = "";
    this.facets = {};
    this.words = "";
    this.moreLike = [];
    this.lessLike = [];
    this.image = null;
    this.scope = scope;
    this.go("look");
    void this.refresh();
  }

  leaveScope(): void {
    this.scope = null;
    void this.refresh();
  }

  // labels

  get name(): string {
    return this.who.trim() || "unknown";
  }

  rename(who: string): void {
    this.who = who;
    localStorage.setItem("embedstore-who", who);
  }

  /** Make a change after those that were decided before it; null if the server refused it. */
  change(send: () => Promise<Change | null>): Promise<Change | null> {
    return this.#writes.run(async () => {
      try {
        return await send();
      } catch (error) {
        this.complain(error);
        return null;
      }
    });
  }

  /** Wait for the changes that were decided so far. */
  settled(): Promise<void> {
    return this.#writes.run(() => Promise.resolve());
  }

  /** Set a value. A conflict with a change of somebody else is reported, with a way to overwrite it. */
  label(request: LabelRequest): Promise<Change | null> {
    const full = { who: this.name, ...request };
    return this.#writes.run(async () => {
      try {
        const { change } = await body(api.POST("/api/v1/labels", { body: full }));
        this.changed(`${counted(change.items, "item")}: ${request.column} = ${String(request.value ?? "no value")}`, change);
        return change;
      } catch (error) {
        if (error instanceof ApiError && error.status === 409 && !full.overwrite) this.#conflict(error, full);
        else this.complain(error);
        return null;
      }
    });
  }

  #conflict(error: ApiError, request: LabelRequest): void {
    const overwrite = () => {
      const { expected: _expected, digest: _digest, ...rest } = request;
      void this.label({ ...rest, overwrite: true });
    };
    this.message = { text: error.message, cure: error.cure, bad: true, action: { label: "Overwrite", run: overwrite } };
    this.reread();
  }

  /** Report a change, with a way to take this very change back, and read again what it touches. */
  changed(text: string, change: Change): void {
    const undo = () => void (this.steps ? this.undo() : this.takeBack(Promise.resolve(change)));
    this.message = { text, bad: false, action: { label: "Undo", run: undo } };
    this.reread();
  }

  reread(): void {
    this.changes++;
    this.list.reload();
    void this.readStore();
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
  takeBack(change?: Promise<Change | null>): Promise<Change | null> {
    return this.#again("undo", change);
  }

  /** Do again a change that was taken back, or the last one. */
  doAgain(change?: Promise<Change | null>): Promise<Change | null> {
    return this.#again("redo", change);
  }

  #again(what: "undo" | "redo", made?: Promise<Change | null>): Promise<Change | null> {
    return this.change(async () => {
      const known = await made;
      if (known === null) return null; // it was refused, so that there is nothing to take back
      const request = { who: this.name, ...(known ? { change: known.change } : {}) };
      const { change } = await body(api.POST(`/api/v1/${what}`, { body: request }));
      this.message = { text: `${what === "undo" ? "Undone" : "Done again"}: ${change.column}, ${counted(change.items, "item")}`, bad: false };
      this.reread();
      return change;
    });
  }

  // messages

  complain(error: unknown): void {
    if (isAbort(error)) return;
    const known = error instanceof ApiError;
    this.message = { text: known ? error.message : String(error), cure: known ? error.cure : null, bad: true };
  }

  say(text: string): void {
    this.message = { text, bad: false };
  }
}

function noted(error: unknown): void {
  page.complain(error);
}

export const page = new Page();

export function exampleOf(entry: ListEntry): Example {
  return { id: entry.id, name: entry.name };
}
