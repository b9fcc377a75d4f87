// Values that a person types, as the column takes them.

import type { Column, Schemas } from "./api";

export type Scalar = Schemas["LabelRequest"]["value"];

/** The text as a number or a boolean where the column has those; the server refuses what does not fit. */
export function parseValue(text: string, kind: Column["kind"] | undefined): Scalar {
  const trimmed = text.trim();
  if (kind === "number" && trimmed !== "" && Number.isFinite(Number(trimmed))) return Number(trimmed);
  if (kind === "boolean" && /^(true|false)$/i.test(trimmed)) return trimmed.toLowerCase() === "true";
  return trimmed;
}

/** A number with its noun, as in "1 label" and "2,000 labels". */
export function counted(count: number, noun: string): string {
  return `${count.toLocaleString()} ${noun}${count === 1 ? "" : "s"}`;
}

/** A value of a column to be read; times without fractions of a second. */
export function shownValue(value: unknown): string {
  if (value === null) return "no value";
  if (value === "") return "(empty text)";
  if (typeof value === "string") return value.replace(/^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\.\d+/, "$1");
  return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(6))) : JSON.stringify(value);
}

/** A time of the server in the words of the browser's language. */
export function when(text: string): string {
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? text : time.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}
