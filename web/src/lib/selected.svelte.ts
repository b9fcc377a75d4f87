// What is selected, in the grid or on the map: single items, or a set that the server holds.

import { api, ApiError, body, type Schemas } from "./api";
import type { ItemList } from "./lists.svelte";
import { messages } from "./messages.svelte";
import { Latest } from "./order";
import { page } from "./page.svelte";
import { query, type Scope } from "./query.svelte";
import * as select from "./selection";
import { counted } from "./values";

/** What was selected, and the list of which it is everything. */
interface Found {
  readonly selection: select.Selection;
  readonly whole?: ItemList;
}

class Selected {
  current: select.Selection = $state.raw(select.EMPTY);
  /** The selection that is under way; what is done with the selection waits for it. */
  pending: Promise<void> | null = $state.raw(null);
  /** The list of which everything is selected. */
  #whole: ItemList | null = $state.raw(null);
  #selections = new Latest();

  /** True where the selection of the server is just what the grid shows. */
  get everything(): boolean {
    return this.#whole === page.list;
  }

  set(selection: select.Selection): void {
    this.#selections.begin(); // one that is on its way comes too late
    this.pending = null;
    this.current = selection;
    this.#whole = null;
  }

  clear(): void {
    this.set(select.EMPTY);
  }

  all(): Promise<void> {
    return this.whenKnown(async () => {
      await page.shown; // the list that was asked for last
      const { list } = page;
      return { selection: await this.#everything(list), whole: list };
    });
  }

  /** Select what is not known yet. Nothing is selected meanwhile, so that nobody labels what was selected before. */
  whenKnown(find: () => Promise<Found>): Promise<void> {
    this.clear();
    const isLatest = this.#selections.begin();
    this.pending = (async () => {
      try {
        const { selection, whole } = await find();
        if (!isLatest()) return;
        this.current = selection;
        this.#whole = whole ?? null;
      } catch (error) {
        messages.complain(error);
      } finally {
        if (isLatest()) this.pending = null;
      }
    })();
    return this.pending;
  }

  async #everything(list: ItemList): Promise<select.Selection> {
    if (page.hits) {
      const ids = Array.from({ length: list.total }, (_, index) => list.at(index)?.id);
      return select.extended(select.EMPTY, ids.filter((id) => id !== undefined));
    }
    const within = query.scope ? { within: query.scope.handle } : {};
    const answer = await this.create({ where: query.where || "true", ...within });
    return select.ofHandle(answer.handle, answer.count);
  }

  /** Create a selection on the server. */
  create(request: Schemas["SelectionRequest"]): Promise<Schemas["SelectionBody"]> {
    return body(api.POST("/api/v1/selections", { body: request }));
  }

  /** The handle of what is selected; single items are sent to the server first. */
  async handle(): Promise<Scope> {
    await this.pending;
    const { count, handle, ids } = this.current;
    if (count === 0) throw new ApiError(0, "nothing is selected", "select items first");
    const label = `${count.toLocaleString()} selected`;
    if (handle !== null) return { handle, label, count };
    return { ...(await this.of([...ids])), label };
  }

  /** A selection of these items, whatever is selected. */
  async of(ids: number[]): Promise<Scope> {
    const { handle, count } = await this.create({ ids });
    return { handle, label: counted(count, "item"), count };
  }

  /** The ids of what is selected, in the order of addition. */
  async ids(): Promise<number[]> {
    const { handle } = await this.handle();
    const ids: number[] = [];
    for (let total = 1; ids.length < total; ) {
      const part = await body(
        api.GET("/api/v1/items", { params: { query: { selection: handle, offset: ids.length, limit: 1000 } } }),
      );
      if (part.items.length === 0) break;
      ids.push(...part.items.map((item) => item.id));
      total = part.total;
    }
    return ids;
  }

  /** Show only what is selected, of what the filters and the search show. */
  async showOnly(): Promise<void> {
    try {
      query.scope = await this.handle();
      this.clear();
      page.show();
    } catch (error) {
      messages.complain(error);
    }
  }
}

export const selected = new Selected();
