// The API of the server. Types come from its OpenAPI description: `python -m tools.page_types` writes `src/api.d.ts`.

import createClient from "openapi-fetch";

import type { components, paths } from "../api";

export type Schemas = components["schemas"];
export type Store = Schemas["StoreBody"];
export type Column = Schemas["ColumnBody"];
export type Item = Schemas["ItemBody"];
export type Hits = Schemas["HitsBody"];
export type Hit = Schemas["HitBody"];
export type Preview = Schemas["ItemPreview"];
export type Details = Schemas["ItemDetails"];

/** What the server answers to a request that it refuses; one shape for every route. */
export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(
    readonly status: number,
    message: string,
    readonly cure: string | null = null,
    readonly position: number | null = null,
  ) {
    super(message);
  }
}

const UNREACHABLE = new ApiError(0, "the server does not answer", "is `embedstore serve` still running?");

const TRIES = 4;
const PAUSE_MS = 250;

/** Ask again where another process holds the catalog for a moment (503): nothing was done then. */
async function patient(request: Request): Promise<Response> {
  for (let attempt = 1; ; attempt++) {
    const response = await fetch(request.clone());
    if (response.status !== 503 || attempt === TRIES) return response;
    await new Promise((resume) => setTimeout(resume, PAUSE_MS * attempt));
    request.signal.throwIfAborted();
  }
}

export const api = createClient<paths>({ baseUrl: location.origin, fetch: patient });

interface Answer<T> {
  readonly data?: T;
  readonly error?: unknown;
  readonly response: Response;
}

/** The body of an answer; every failure becomes an ApiError, except an abort, which stays one. */
export async function body<T>(call: Promise<Answer<T>>): Promise<T> {
  let answer: Answer<T>;
  try {
    answer = await call;
  } catch (error) {
    if (isAbort(error)) throw error;
    throw UNREACHABLE;
  }
  if (answer.data !== undefined && answer.response.ok) return answer.data;
  throw refusal(answer.response.status, answer.error);
}

async function fetched(path: string, query: Record<string, string>): Promise<Response> {
  let response: Response;
  try {
    response = await patient(new Request(`${path}?${new URLSearchParams(query).toString()}`));
  } catch {
    throw UNREACHABLE;
  }
  if (response.ok) return response;
  throw refusal(response.status, await response.json().catch(() => null));
}

/** The bytes of an answer that is not JSON. */
export async function binary(path: string, query: Record<string, string>): Promise<ArrayBuffer> {
  return (await fetched(path, query)).arrayBuffer();
}

/** The bytes of an answer; JSON where the server is still at work on it, and null where nothing is new. */
export async function binaryOrWork<Work>(path: string, query: Record<string, string>): Promise<ArrayBuffer | Work | null> {
  const response = await fetched(path, query);
  if (response.status === 204) return null;
  return response.status === 202 ? ((await response.json()) as Work) : response.arrayBuffer();
}

function refusal(status: number, error: unknown): ApiError {
  if (error !== null && typeof error === "object" && "error" in error) {
    const { error: text, cure, position } = error as Schemas["ErrorBody"];
    return new ApiError(status, text, cure ?? null, position ?? null);
  }
  return new ApiError(status, `the server answered with status ${String(status)}`);
}

export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

export function thumbnail(id: number, size: number): string {
  return `/api/v1/items/${String(id)}/thumbnail?size=${String(size)}`;
}

export function picture(id: number): string {
  return `/api/v1/items/${String(id)}/image`;
}

export function sound(id: number): string {
  return `/api/v1/items/${String(id)}/sound`;
}

/** Exchange the token in the fragment of the address for a cookie, and remove it from the address. */
export async function logIn(): Promise<void> {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const token = fragment.get("token");
  if (token === null) return;
  fragment.delete("token");
  const rest = fragment.toString();
  history.replaceState(null, "", location.pathname + (rest ? `#${rest}` : ""));
  await body(api.POST("/api/v1/session", { body: { token } }));
}
