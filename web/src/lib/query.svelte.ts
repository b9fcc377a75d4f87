// What is asked for: filters, an order, words, a picture and examples, and the requests that these make.

import { type View } from "./address";
import { api, body, type Hits, type Schemas } from "./api";
import { combined, type Facets } from "./filter";
import type { ItemQuery } from "./lists.svelte";

const HITS = 200;

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

class Query {
  text = $state("");
  facets: Facets = $state.raw({});
  order = $state("");
  descending = $state(false);
  scope: Scope | null = $state.raw(null);

  words = $state("");
  moreLike: readonly Example[] = $state.raw([]);
  lessLike: readonly Example[] = $state.raw([]);
  image: File | null = $state.raw(null);
  /** How strict the cut-off is below which a hit does not fit: 0 takes everything. */
  /** By default the server chooses it. */
  strictness: number | null = $state(null);
  /** The column of texts whose words count, too; "" for none. */
  hybrid = $state("");
  /** True where searches go by the store itself, though the server has a replica. */
  byStore = $state(false);
  /** Grows when the filters or the search are cleared, so that what was typed and not applied goes, too. */
  cleared = $state(0);

  get where(): string {
    return combined(this.text, this.facets);
  }

  /** True where something is searched for, and false where items are only filtered. */
  get hasSearch(): boolean {
    return this.words.trim() !== "" || this.moreLike.length + this.lessLike.length > 0 || this.image !== null;
  }

  /** True where a text is searched for, so that its words can count. */
  get ranksWords(): boolean {
    return this.words.trim() !== "" && this.image === null;
  }

  /** What the grid lists where nothing is searched for. */
  get items(): ItemQuery {
    const { where, order, descending } = this;
    return { where, order, descending, selection: this.scope?.handle ?? null };
  }

  /** Take over what an address says. */
  restore(view: View): void {
    this.text = view.text;
    this.facets = view.facets;
    this.order = view.order;
    this.descending = view.descending;
    this.words = view.words;
    this.hybrid = view.hybrid;
  }

  clearFilters(): void {
    this.text = "";
    this.facets = {};
    this.scope = null;
    this.cleared++;
  }

  clearSearch(): void {
    this.words = "";
    this.moreLike = [];
    this.lessLike = [];
    this.image = null;
  }

  search(): Promise<Hits> {
    if (this.image !== null) return this.#searchImage(this.image);
    const { words, hybrid, moreLike, lessLike } = this;
    const request: Schemas["SearchBody"] = {
      ...this.#limits(),
      more_like: moreLike.map((example) => example.id),
      less_like: lessLike.map((example) => example.id),
      ...(words.trim() ? { words: words.trim(), ...(hybrid ? { hybrid } : {}) } : {}),
    };
    return body(api.POST("/api/v1/search", { body: request }));
  }

  #searchImage(image: File): Promise<Hits> {
    return body(
      api.POST("/api/v1/search/image", {
        params: { query: this.#limits() },
        body: image as never, // the bytes of the file are the body
        bodySerializer: (file: unknown) => file as Blob,
        headers: { "content-type": "application/octet-stream" },
      }),
    );
  }

  /** What both kinds of search are limited to. */
  #limits() {
    const { where, strictness, scope } = this;
    return {
      k: HITS,
      strictness,
      ...(where ? { where } : {}),
      ...(scope ? { selection: scope.handle } : {}),
      ...(this.byStore ? { replica: "" } : {}),
    };
  }
}

export const query = new Query();
