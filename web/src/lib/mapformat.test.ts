import { expect, it } from "vitest";

import { isInside, parseCodes, parseMap, parseMask } from "./mapformat";

function message(magic: string, count: number, generation: number, ...parts: ArrayBufferView[]): ArrayBuffer {
  const header = new DataView(new ArrayBuffer(24));
  [...magic].forEach((letter, place) => {
    header.setUint8(place, letter.charCodeAt(0));
  });
  header.setBigUint64(8, BigInt(count), true);
  header.setBigUint64(16, BigInt(generation), true);
  const all = [header, ...parts].flatMap((part) => [...new Uint8Array(part.buffer, part.byteOffset, part.byteLength)]);
  return Uint8Array.from(all).buffer;
}

it("reads ids above 32 bits and places", () => {
  const ids = BigInt64Array.of(3n, 5_000_000_000n);
  const map = parseMap(message("ESMAP001", 2, 7, ids, Float32Array.of(0.5, 0.25, -1, 1)));
  expect([...map.ids]).toEqual([3, 5_000_000_000]);
  expect([...map.xy]).toEqual([0.5, 0.25, -1, 1]);
  expect(map.generation).toBe(7);
});

it("reads codes and masks", () => {
  expect([...parseCodes(message("ESCOD001", 3, 1, Uint16Array.of(0, 1, 40_000)))]).toEqual([0, 1, 40_000]);
  const mask = parseMask(message("ESMSK001", 9, 1, Uint8Array.of(0b00000010, 1)));
  expect([0, 1, 7, 8].map((item) => isInside(mask, item))).toEqual([false, true, false, true]);
  expect(isInside(null, 5)).toBe(true);
});

it("refuses something else", () => {
  expect(() => parseMap(message("ESCOD001", 0, 1))).toThrow("ESMAP001");
  expect(() => parseMap(new ArrayBuffer(4))).toThrow("ESMAP001");
});
