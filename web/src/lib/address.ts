// What is shown, as the fragment of the address: it can be kept as a bookmark, and a reload shows the same.

import type { Facets, Value } from "./filter";

export const MODES = ["look", "map", "label", "clean", "judge"] as const;
export type Mode = (typeof MODES)[number];

export interface View {
  readonly mode: Mode;
  readonly text: string;
  readonly facets: Facets;
  readonly order: string;
  readonly descending: boolean;
  readonly words: string;
  /** The column whose words count in a search, or nothing. */
  readonly hybrid: string;
}

export const START: View = { mode: "look", text: "", facets: {}, order: "", descending: false, words: "", hybrid: "" };

export function toFragment(view: View): string {
  const fragment = new URLSearchParams();
  if (view.mode !== START.mode) fragment.set("mode", view.mode);
  if (view.words) fragment.set("words", view.words);
  if (view.words && view.hybrid) fragment.set("hybrid", view.hybrid);
  if (view.text) fragment.set("where", view.text);
  if (Object.keys(view.facets).length > 0) fragment.set("facets", JSON.stringify(view.facets));
  if (view.order) fragment.set("order", (view.descending ? "-" : "+") + view.order);
  return fragment.toString();
}

/** Read a fragment. What does not fit is left out: an address may come from anywhere. */
export function fromFragment(fragment: string): View {
  const parts = new URLSearchParams(fragment.replace(/^#/, ""));
  const mode = MODES.find((known) => known === parts.get("mode")) ?? START.mode;
  const order = parts.get("order") ?? "";
  return {
    mode,
    text: parts.get("where") ?? "",
    facets: facetsFrom(parts.get("facets")),
    order: order.slice(1),
    descending: order.startsWith("-"),
    words: parts.get("words") ?? "",
    hybrid: parts.get("hybrid") ?? "",
  };
}

function facetsFrom(text: string | null): Facets {
  try {
    const parsed: unknown = JSON.parse(text ?? "{}");
    if (parsed === null || typeof parsed !== "object" || Array.isArray(parsed)) return {};
    const lists = Object.entries(parsed).filter(([, values]) => Array.isArray(values) && values.every(isValue));
    return Object.fromEntries(lists) as Facets;
  } catch {
    return {};
  }
}

function isValue(value: unknown): value is Value {
  return value === null || ["string", "number", "boolean"].includes(typeof value);
}
