// What the items of a store are: images, texts or sounds.

import type { Store } from "./api";

const NAMES: Record<string, string> = { text: "texts", audio: "sounds" };

/** What a store holds besides images, in words; "" for a store of images only. */
export function otherKinds(spaces: Pick<Store["spaces"][number], "modality">[]): string {
  const modalities = [...new Set(spaces.map(({ modality }) => modality))];
  return modalities.flatMap((modality) => NAMES[modality] ?? []).join(" and ");
}
