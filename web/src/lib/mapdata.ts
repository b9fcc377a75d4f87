// Reads the map, its colours and its filters from the server.

import { api, binary, body } from "./api";
import { parseCodes, parseMap, parseMask, type MapData } from "./mapformat";

export interface MapCodes {
  readonly codes: Uint16Array;
  readonly legend: readonly { readonly code: number; readonly value: string; readonly count: number }[];
}

/** Read the places; `again` computes them anew, so that items move. */
export async function readMap(again: boolean): Promise<MapData> {
  return parseMap(await binary("/api/v1/map", again ? { again: "true" } : {}));
}

export async function readCodes(column: string): Promise<MapCodes> {
  const [codes, { entries }] = await Promise.all([
    binary("/api/v1/map/column", { name: column }),
    body(api.GET("/api/v1/map/legend", { params: { query: { name: column } } })),
  ]);
  return { codes: parseCodes(codes), legend: entries };
}

export async function readMask(where: string, selection: string | null): Promise<Uint8Array> {
  const query = { ...(where ? { where } : {}), ...(selection === null ? {} : { selection }) };
  return parseMask(await binary("/api/v1/map/mask", query));
}
