// What is selected: single items, or everything that a filter, a search or the map gave, which the server keeps by a handle.

export interface Selection {
  readonly ids: ReadonlySet<number>;
  /** A selection of the server; `ids` is empty then. */
  readonly handle: string | null;
  readonly count: number;
  /** Where a range with Shift begins. */
  readonly anchor: number | null;
}

export const EMPTY: Selection = { ids: new Set(), handle: null, count: 0, anchor: null };

function ofIds(ids: Set<number>, anchor: number | null): Selection {
  return { ids, handle: null, count: ids.size, anchor };
}

export function ofHandle(handle: string, count: number): Selection {
  return count > 0 ? { ids: new Set(), handle, count, anchor: null } : EMPTY;
}

/** Toggle one item. A toggle begins a new selection where one of the server was. */
export function toggle(selection: Selection, id: number): Selection {
  const ids = new Set(selection.ids);
  if (!ids.delete(id)) ids.add(id);
  return ofIds(ids, id);
}

export function only(id: number): Selection {
  return ofIds(new Set([id]), id);
}

/** Add the items of a range, which the caller looks up. */
export function extended(selection: Selection, ids: Iterable<number>): Selection {
  return ofIds(new Set([...selection.ids, ...ids]), selection.anchor);
}

/** What a request of the server takes: ids, or the handle of a selection. */
export function target(selection: Selection): { ids: number[] } | { selection: string } {
  return selection.handle === null ? { ids: [...selection.ids] } : { selection: selection.handle };
}

export function has(selection: Selection, id: number, everything: boolean): boolean {
  return selection.handle === null ? selection.ids.has(id) : everything;
}
