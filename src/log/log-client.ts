import { MongoClient, type MongoClientOptions } from "mongodb";
import { type ClientTlsFiles, readClientTls } from "../tls-files.ts";

/** How long the server may take over one command of the log before it answers that it could not. */
export const ROUND_TRIP_MS = 3000;
/** How long a server may be silent: as long as the others wait by default before they elect another. */
const SILENCE_MS = 10_000;
/** How long a command waits for a member that can take it, such as during an election. */
const SELECTION_MS = 5000;

const NO_FILES: ClientTlsFiles = { caFile: undefined, certFile: undefined, keyFile: undefined };

/**
 * A client for the log, by TLS where the URL says so or there are files for it, with what its promises rest on whatever the URL says: retried writes, which make a late copy of a
 * write known as one, and time limits, without which a frozen server holds a writer for as long as it likes.
 * Throws an Error that shows nothing of a URL that cannot be used but what is wrong with it.
 */
export function createLogClient(url: string, tlsFiles = NO_FILES): MongoClient {
  const tls = readClientTls(tlsFiles);
  const options: MongoClientOptions = {
    appName: "ordertrail",
    retryWrites: true,
    retryReads: true,
    socketTimeoutMS: SILENCE_MS,
    connectTimeoutMS: SILENCE_MS,
    serverSelectionTimeoutMS: SELECTION_MS,
    ...(Object.keys(tls).length > 0 && { ...tls, tls: true }),
  };
  try {
    return new MongoClient(url, options);
  } catch (error) {
    throw new Error(`the MongoDB URL cannot be used: ${withoutSecrets((error as Error).message, url)}`);
  }
}

/** The driver quotes some of what it cannot read: a password with a slash in it, say, looks like hosts and options. */
function withoutSecrets(message: string, url: string): string {
  const rest = url.slice(url.indexOf("//") + 2);
  const user = rest.slice(0, Math.max(0, rest.lastIndexOf("@")));
  const values = [...rest.matchAll(/[?&]\w*(?:pass|secret|token|properties)\w*=([^&]*)/gi)].map(([, value = ""]) => value);
  const secrets = [...user.split(/[/?@&=:,]/), ...values.flatMap((value) => value.split(/[:,]/))].filter((part) => part !== "");
  return secrets.some((secret) => message.includes(secret) || message.includes(decoded(secret)))
    ? "it is not of the form mongodb://user:password@host,host/?option=value, with what is special in a password percent-encoded"
    : message;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
