// Reports of classifiers. The last one stays while its pictures are looked at.

import { api, ApiError, body, type Schemas } from "./api";
import { Latest } from "./order";
import { query } from "./query.svelte";

export const KINDS = ["probe", "knn", "zero-shot"] as const;
export type Kind = (typeof KINDS)[number];

/** A report with what was asked for: the choices of the form may be others by now. */
export interface Judged {
  readonly report: Schemas["ReportBody"];
  readonly by: string;
  readonly where: string;
}

class Judging {
  kind: Kind = $state("probe");
  column = $state("label");
  by = $state("");
  judged = $state.raw<Judged | null>(null);
  compared = $state.raw<Schemas["ComparisonBody"] | null>(null);
  error = $state.raw<ApiError | null>(null);
  busy = $state(false);

  #works = new Latest();

  async judge(): Promise<void> {
    const { kind, column, by } = this;
    const { where } = query;
    const params = { path: { name: kind }, query: { column, ...(where ? { where } : {}), ...(by ? { by } : {}) } };
    await this.#work(async () => {
      const report = await body(api.GET("/api/v1/reports/{name}", { params }));
      return { judged: { report, by, where }, compared: null };
    });
  }

  async compare(): Promise<void> {
    const { column } = this;
    const { where } = query;
    const params = { query: { column, heads: ["logistic", "knn", "prototype"], ...(where ? { where } : {}) } };
    await this.#work(async () => ({ judged: null, compared: await body(api.GET("/api/v1/comparison", { params })) }));
  }

  async #work(run: () => Promise<Pick<Judging, "judged" | "compared">>): Promise<void> {
    const isLatest = this.#works.begin();
    this.busy = true;
    this.error = null;
    this.judged = null;
    this.compared = null;
    try {
      const found = await run();
      if (isLatest()) Object.assign(this, found);
    } catch (reason) {
      if (isLatest()) this.error = reason instanceof ApiError ? reason : new ApiError(0, String(reason));
    } finally {
      if (isLatest()) this.busy = false;
    }
  }
}

/** It stays while another view is open. */
export const judging = new Judging();
