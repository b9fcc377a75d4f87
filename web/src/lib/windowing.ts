// Which part of a long grid is on the screen.
//
// A million thumbnails are taller than the largest element a browser lays out (about 17 million pixels in Firefox, 33 in
// Chromium). Above MAX_HEIGHT the scrollbar is shorter than the content: a small move of it moves the content by as much,
// a large one (dragging the scrollbar) moves it in proportion.

export const MAX_HEIGHT = 8_000_000;

export interface Layout {
  readonly total: number;
  readonly columns: number;
  readonly rowHeight: number;
  readonly viewport: number;
}

export interface ScrollState {
  /** Scroll position of the browser's element, in pixels. */
  readonly physical: number;
  /** Distance of the visible part from the top of the content, in pixels. */
  readonly virtual: number;
}

export interface Range {
  readonly start: number;
  readonly end: number;
}

export function columnsOf(width: number, cell: number): number {
  return Math.max(1, Math.floor(width / cell));
}

export function contentHeight(layout: Layout): number {
  return Math.ceil(layout.total / layout.columns) * layout.rowHeight;
}

/** Height of the element that gives the scrollbar its length. */
export function scrollHeight(layout: Layout): number {
  return Math.min(contentHeight(layout), MAX_HEIGHT);
}

function maxVirtual(layout: Layout): number {
  return Math.max(0, contentHeight(layout) - layout.viewport);
}

function maxPhysical(layout: Layout): number {
  return Math.max(0, scrollHeight(layout) - layout.viewport);
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}

/** The state after the browser scrolled to `physical`. */
export function scrolled(layout: Layout, state: ScrollState, physical: number): ScrollState {
  const limit = maxPhysical(layout);
  const inside = clamp(physical, 0, limit);
  if (contentHeight(layout) <= MAX_HEIGHT) return { physical: inside, virtual: inside };
  if (inside <= 0) return { physical: inside, virtual: 0 };
  if (inside >= limit) return { physical: inside, virtual: maxVirtual(layout) };
  const delta = inside - state.physical;
  if (Math.abs(delta) > layout.viewport * 2) {
    return { physical: inside, virtual: (inside / limit) * maxVirtual(layout) };
  }
  return { physical: inside, virtual: clamp(state.virtual + delta, 0, maxVirtual(layout)) };
}

/** The state that shows the content from `virtual` on, with the scrollbar at the place in proportion. */
export function placed(layout: Layout, virtual: number): ScrollState {
  const inside = clamp(virtual, 0, maxVirtual(layout));
  if (contentHeight(layout) <= MAX_HEIGHT) return { physical: inside, virtual: inside };
  return { physical: Math.round((inside / maxVirtual(layout)) * maxPhysical(layout)), virtual: inside };
}

/** The items on the screen, with some rows more above and below. */
export function visibleItems(layout: Layout, virtual: number, overscan = 2): Range {
  const first = Math.max(0, Math.floor(virtual / layout.rowHeight) - overscan);
  const last = Math.ceil((virtual + layout.viewport) / layout.rowHeight) + overscan;
  return {
    start: Math.min(first * layout.columns, layout.total),
    end: Math.min(last * layout.columns, layout.total),
  };
}

/** Where the row of an item begins, relative to the scrolled element. */
export function topOf(layout: Layout, state: ScrollState, index: number): number {
  return state.physical - state.virtual + Math.floor(index / layout.columns) * layout.rowHeight;
}

/** The least move that brings the row of an item onto the screen. */
export function revealed(layout: Layout, state: ScrollState, index: number): ScrollState {
  const top = Math.floor(index / layout.columns) * layout.rowHeight;
  if (top < state.virtual) return placed(layout, top);
  const bottom = top + layout.rowHeight;
  if (bottom > state.virtual + layout.viewport) return placed(layout, bottom - layout.viewport);
  return state;
}

/** The pages that hold a range of items. */
export function pagesOf(range: Range, pageSize: number): number[] {
  const pages: number[] = [];
  for (let page = Math.floor(range.start / pageSize); page * pageSize < range.end; page++) pages.push(page);
  return pages;
}

/** The item that a key moves to, or null for a key that does not move. */
export function moved(layout: Layout, index: number, key: string): number | null {
  const rows = Math.max(1, Math.floor(layout.viewport / layout.rowHeight));
  const steps: Record<string, number> = {
    ArrowLeft: -1,
    ArrowRight: 1,
    ArrowUp: -layout.columns,
    ArrowDown: layout.columns,
    PageUp: -layout.columns * rows,
    PageDown: layout.columns * rows,
    Home: -Infinity,
    End: Infinity,
  };
  const step = steps[key];
  if (step === undefined || layout.total === 0) return null;
  if (index < 0) return key === "End" ? layout.total - 1 : 0;
  return clamp(index + step, 0, layout.total - 1);
}
