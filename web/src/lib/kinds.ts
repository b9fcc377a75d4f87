// What the items of a store are: images, texts or sounds.

import type { Store } from "./api";

const NAMES: Record<string, string> = { image: "pictures", text: "texts", audio: "sounds" };

export interface Kinds {
  /** What the items are called; a store without a space may hold anything. */
  readonly noun: string;
  readonly hasPictures: boolean;
  readonly onlyPictures: boolean;
  readonly hasSounds: boolean;
}

export function kindsOf(spaces: Pick<Store["spaces"][number], "modality">[]): Kinds {
  const modalities = [...new Set(spaces.map(({ modality }) => modality))];
  return {
    noun: modalities.map((modality) => NAMES[modality] ?? "items").join(" and ") || "items",
    hasPictures: modalities.length === 0 || modalities.includes("image"),
    onlyPictures: modalities.every((modality) => modality === "image"),
    hasSounds: modalities.includes("audio"),
  };
}
