// Where the focus goes when what had it is removed.

import { tick } from "svelte";

/** Give the focus back to an element, or to what the view is about where that is gone, unless something else has it. */
export async function restoreFocus(before: Element | null): Promise<void> {
  await tick(); // what is removed together with the dialog is gone then
  if (document.activeElement !== null && document.activeElement !== document.body) return;
  const next = before instanceof HTMLElement && before.isConnected ? before : document.querySelector<HTMLElement>("main [tabindex='0']");
  next?.focus({ preventScroll: true });
}
