// The filter of the page: the text of the person, and the values chosen among the facets, as one `where` of the server.

export type Value = string | number | boolean | null;
export type Facets = Readonly<Record<string, readonly Value[]>>;

export function quoteName(name: string): string {
  return /^[a-z_][a-z0-9_]*$/i.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
}

export function quoteValue(value: Value): string {
  if (value === null) return "null";
  if (typeof value === "string") return `'${value.replaceAll("'", "''")}'`;
  return String(value);
}

/** The column whose texts are several values, and what separates them. */
export const TAGS = "tags";
const SEPARATOR = ";";

/** The values of an item's column that are filtered by, one by one. */
export function valuesOf(column: string, value: Value): Value[] {
  return column === TAGS && typeof value === "string" ? value.split(SEPARATOR) : [value];
}

export function valuesClause(column: string, values: readonly Value[]): string {
  const name = quoteName(column);
  const present = values.filter((value) => value !== null);
  const parts: string[] = [];
  if (column === TAGS) parts.push(...present.map((value) => `list_contains(string_split(${name}, '${SEPARATOR}'), ${quoteValue(value)})`));
  else if (present.length === 1) parts.push(`${name} = ${quoteValue(present[0] ?? null)}`);
  else if (present.length > 1) parts.push(`${name} in (${present.map(quoteValue).join(", ")})`);
  if (present.length < values.length) parts.push(`${name} is null`);
  return parts.length > 1 ? `(${parts.join(" or ")})` : (parts[0] ?? "");
}

/** One condition from the text and the facets; `except` leaves one facet out, to count its other values. */
export function combined(text: string, facets: Facets, except?: string): string {
  const clauses = Object.entries(facets)
    .filter(([column, values]) => column !== except && values.length > 0)
    .map(([column, values]) => valuesClause(column, values));
  const own = text.trim();
  if (own && clauses.length > 0) return [`(${own}\n)`, ...clauses].join(" and ");
  return own || clauses.join(" and ");
}

export function toggled(facets: Facets, column: string, value: Value): Facets {
  const before = facets[column] ?? [];
  const after = before.includes(value) ? before.filter((other) => other !== value) : [...before, value];
  const rest = Object.fromEntries(Object.entries(facets).filter(([name]) => name !== column));
  return after.length > 0 ? { ...rest, [column]: after } : rest;
}

/** The part of a uri up to its last slash, which is the folder or archive it came from. */
export function folderOf(uri: string): string {
  return uri.slice(0, uri.lastIndexOf("/") + 1);
}

/** The column that a uri of a row of a table reads, as in `notes.csv#column=text&row=17`. */
export function columnOf(uri: string): string | null {
  const [, row] = uri.split(/#(?=[^#]*$)/);
  return row === undefined ? null : new URLSearchParams(row).get("column");
}

/** A condition for the items of one folder. `starts_with` needs no escapes of `%` and `_`. */
export function folderClause(folder: string): string {
  return `starts_with(uri, ${quoteValue(folder)})`;
}
