// What a person chose about the look of the page; this browser remembers it.

export const CELLS = [84, 128, 184, 260] as const;
const KEY = "embedstore-cell";

class Preferences {
  cell = $state(initial());

  resize(cell: number): void {
    this.cell = cell;
    localStorage.setItem(KEY, String(cell));
  }
}

function initial(): number {
  const kept = Number(localStorage.getItem(KEY));
  if (CELLS.some((cell) => cell === kept)) return kept;
  return window.innerWidth < 500 ? 110 : 128;
}

export const view = new Preferences();
