// Reads the map, its colours and its filters from the server.

import { api, binary, binaryOrWork, body, type Schemas } from "./api";
import { parseCodes, parseMap, parseMask, type MapData } from "./mapformat";

export interface MapCodes {
  readonly codes: Uint16Array;
  readonly legend: readonly { readonly code: number; readonly value: string; readonly count: number }[];
}

export type MapWork = Schemas["MapProgressBody"];

/** Read the places: null where they are those that are here, and the progress of the work where they are computed. */
export async function readMap(known: MapData | null, again: boolean): Promise<MapData | MapWork | null> {
  const query = {
    wait: "false",
    ...(again ? { again: "true" } : {}),
    ...(known && !again ? { known: String(known.generation) } : {}),
  };
  const answer = await binaryOrWork<MapWork>("/api/v1/map", query);
  return answer instanceof ArrayBuffer ? parseMap(answer) : answer;
}

export async function cancelMap(): Promise<void> {
  await body(api.DELETE("/api/v1/map/work"));
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
