// The classes of the label mode: which key gives which, and what typed letters mean.

export interface Choice {
  readonly value: string;
  readonly key: string | null;
}

const KEYS = "123456789";

/** The classes in a stable order, the first nine with a key. */
export function choicesOf(values: readonly string[]): Choice[] {
  return values.map((value, place) => ({ value, key: KEYS[place] ?? null }));
}

/** The classes that fit what was typed: those that begin with it first, then those that contain it. */
export function fitting(values: readonly string[], typed: string): string[] {
  const wanted = typed.trim().toLowerCase();
  if (wanted === "") return [...values];
  const begins = values.filter((value) => value.toLowerCase().startsWith(wanted));
  const contains = values.filter((value) => value.toLowerCase().includes(wanted) && !begins.includes(value));
  return [...begins, ...contains];
}

/** What Enter gives: the class of this very name, else the first that fits, else a new one. */
export function meant(values: readonly string[], typed: string): string | null {
  const exact = typed.trim();
  if (exact === "") return null;
  return values.find((value) => value === exact) ?? fitting(values, typed)[0] ?? exact;
}

/** The classes that are there and those that were given since; the order never changes under the hand. */
export function extendedBy(values: readonly string[], others: readonly string[]): string[] {
  return [...values, ...others.filter((value) => !values.includes(value))];
}
