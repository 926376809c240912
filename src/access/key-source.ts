import { readFile } from "node:fs/promises";
import {
  createLocalJWKSet,
  createRemoteJWKSet,
  customFetch,
  errors,
  type FetchImplementation,
  type JWTVerifyGetKey,
  type LocalJWKSet,
} from "jose";
import type { Logger } from "pino";
import { Unavailable } from "../domain/refusal.ts";
import { readAtMost } from "../read-at-most.ts";
import { createAllowances } from "./allowances.ts";
import { parseKeySet, publicKeySet } from "./key-set.ts";

/**
 * Finds the public key with which a token says it was signed. Throws a JOSEError when there is no such key, and
 * Unavailable when the keys cannot be had.
 */
export type KeySource = JWTVerifyGetKey;

/** The keys in a file of JSON Web Keys. It is read again when a token names a key that was not in it. */
export function fileKeys(path: string): KeySource {
  let known: LocalJWKSet | undefined;

  async function read(): Promise<LocalJWKSet> {
    const { keys } = parseKeySet(await readFile(path, "utf8"), path);
    known = createLocalJWKSet(publicKeySet(keys));
    return known;
  }

  return orUnavailable(async (header, token) => {
    if (!known) return (await read())(header, token);
    try {
      return await known(header, token);
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
      return (await read())(header, token);
    }
  });
}

/** The first of two sources that has the key. */
export function eitherKeys(first: KeySource, second: KeySource): KeySource {
  return async (header, token) => {
    try {
      return await first(header, token);
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
      return await second(header, token);
    }
  };
}

/** How old the keys may be before they are fetched again. */
const REFRESH_MS = 10 * 60 * 1000;
/** How soon they are fetched again beside the calls when that has failed. */
const REFRESH_AFTER_FAILURE_MS = 30 * 1000;
/** How long after a failed fetch the next one may come. */
const RETRY_MS = 1000;
/** How often keys are fetched because one is not known: anybody can make up its name. */
const FETCHES_FOR_UNKNOWN = { burst: 5, perMinute: 2 };
const FETCH_TIMEOUT_MS = 3000;
/** Some thousand keys; whoever answers with more is no issuer. */
const MAX_KEY_SET_BYTES = 1024 * 1024;

/** Keeps what issuers published last, for processes that start while an issuer is away. */
export type IssuerKeyMemory = {
  save(url: URL, keySet: string): Promise<void>;
  /** What was saved last, unless that is too long ago. */
  load(url: URL): Promise<string | undefined>;
};

/**
 * The keys at an issuer's address. They are fetched when first needed, when a token names an unknown key (a few times at
 * once, then every 30 seconds), and beside the calls when they are ten minutes old: while the issuer is away, those known
 * remain in use, to begin with those that any process has saved, and others are Unavailable.
 */
export function remoteKeys(url: URL, clock: () => Date, logger: Logger, memory?: IssuerKeyMemory): KeySource {
  let refreshAt = clock().getTime() + REFRESH_MS;
  const refreshSoon = () => {
    refreshAt = Math.min(refreshAt, clock().getTime() + REFRESH_AFTER_FAILURE_MS);
  };
  const fetcher = fetchWithPauses(url, logger, memory, refreshSoon);
  const remote = createRemoteJWKSet(url, {
    cacheMaxAge: Number.POSITIVE_INFINITY,
    // Its own would also hold up the first fetch for a key that has just been published, and those after a failed one.
    cooldownDuration: Number.POSITIVE_INFINITY,
    timeoutDuration: FETCH_TIMEOUT_MS,
    [customFetch]: fetcher.fetch,
  });
  const forUnknown = createAllowances({ ...FETCHES_FOR_UNKNOWN, clock });

  function refreshIfOld(): void {
    const now = clock().getTime();
    if (now < refreshAt) return;
    refreshAt = now + REFRESH_MS;
    remote.reload().catch((error: unknown) => {
      refreshSoon();
      logger.warn({ err: error }, "the keys that verify tokens cannot be fetched; those known remain in use");
    });
  }

  return orUnavailable(async (header, token) => {
    refreshIfOld();
    const before = fetcher.succeeded();
    try {
      return await remote(header, token);
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey) || fetcher.succeeded() > before) throw error;
      // While the last fetch failed, its pauses are the bound, and there is no telling that the key is not known.
      if (!remote.reloading && !fetcher.failing() && forUnknown.take("") > 0) throw error;
    }
    await remote.reload();
    return await remote(header, token);
  });
}

type Fetcher = {
  readonly fetch: FetchImplementation;
  /** How often the issuer has answered with keys. */
  succeeded(): number;
  /** Whether it did not, the last time. */
  failing(): boolean;
};

/** Keeps an issuer in trouble from getting a request for every call that comes in here. */
function fetchWithPauses(issuer: URL, logger: Logger, memory: IssuerKeyMemory | undefined, usesSaved: () => void): Fetcher {
  let failure: { readonly error: unknown; readonly at: number } | undefined;
  let hasKeys = false;
  let succeeded = 0;

  async function fetchAndSave(...request: Parameters<FetchImplementation>): Promise<Response> {
    const response = await fetch(...request);
    if (response.status !== 200) throw new Error(`the issuer answered ${response.status} instead of its keys`);
    const text = (await readAtMost(response.body ?? [], MAX_KEY_SET_BYTES)).toString();
    const keySet = JSON.stringify(publicKeySet(parseKeySet(text, issuer.href).keys));
    hasKeys = true;
    memory?.save(issuer, keySet).catch((error: unknown) => logger.warn({ err: error }, "an issuer's keys cannot be saved"));
    return new Response(text, { headers: { "content-type": "application/json" } });
  }

  async function fetchOrSaved(...request: Parameters<FetchImplementation>): Promise<Response> {
    if (failure && performance.now() - failure.at < RETRY_MS) throw failure.error;
    try {
      const response = await fetchAndSave(...request);
      failure = undefined;
      succeeded += 1;
      return response;
    } catch (error) {
      failure = { error, at: performance.now() };
      const saved = hasKeys ? undefined : await memory?.load(issuer);
      if (saved === undefined) throw error;
      hasKeys = true;
      usesSaved();
      logger.warn({ err: error, issuer_keys: issuer.href }, "an issuer's keys cannot be fetched; those saved last are in use");
      return new Response(saved, { headers: { "content-type": "application/json" } });
    }
  }

  return { fetch: fetchOrSaved, succeeded: () => succeeded, failing: () => failure !== undefined };
}

/** Passes on what is wrong with a token, and makes all else Unavailable: it is not the caller's doing. */
function orUnavailable(source: KeySource): KeySource {
  return async (header, token) => {
    try {
      return await source(header, token);
    } catch (cause) {
      if (cause instanceof errors.JWKSNoMatchingKey || cause instanceof errors.JWKSMultipleMatchingKeys) throw cause;
      throw new Unavailable("the keys that verify tokens cannot be had at present; try again", { cause });
    }
  };
}
