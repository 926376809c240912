import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createSecureContext, type SecureContextOptions, type Server, type TlsOptions } from "node:tls";
import type { Logger } from "pino";
import type { ServerTlsFiles } from "../tls-files.ts";

export type DoorTlsOptions = {
  readonly files: ServerTlsFiles;
  /** How the log names the port. */
  readonly door: "gRPC" | "HTTP";
  readonly clock: () => Date;
  readonly logger: Logger;
  /** How often the files are looked at, in milliseconds. */
  readonly pollMs?: number;
};

/** A port's certificate, which follows its files. */
export type DoorTls = {
  /** For the constructor of the server. */
  readonly serverOptions: TlsOptions;
  /** A name that the certificate is made out to, such as "orders.example.com"; empty if there is none. */
  readonly serverName: string;
  /**
   * Gives the server each new certificate that comes into the files, until disposed of. Connections that are open live
   * on with the old one. What cannot be used is refused with a line in the log, and the old certificate stays.
   */
  follow(server: Pick<Server, "setSecureContext">): Disposable;
};

const POLL_MS = 2_000;
const EXPIRES_SOON_MS = 14 * 24 * 3600 * 1000;

/** Reads the certificate of a port. Throws an Error that names the file and what is wrong with it, and shows nothing of the key. */
export async function createDoorTls({ files, door, clock, logger, pollMs = POLL_MS }: DoorTlsOptions): Promise<DoorTls> {
  const first = await readFiles(files);
  const { context, certificate } = check(files, first, clock());

  return {
    serverOptions: {
      ...context,
      requestCert: files.clientCaFile !== undefined,
      rejectUnauthorized: files.clientCaFile !== undefined && files.clientCert === "required",
    },
    serverName: nameOf(certificate),
    follow(server) {
      let inUse = first;
      let current = certificate;
      let suspected = "";
      let told = "";
      let warned: X509Certificate | undefined;

      async function look(): Promise<void> {
        try {
          const read = await readFiles(files);
          if (!isSame(read, inUse)) {
            const next = check(files, read, clock());
            server.setSecureContext(next.context);
            inUse = read;
            current = next.certificate;
            logger.info({ door, expires_at: current.validToDate.toISOString() }, "a new certificate is in use");
          }
          suspected = "";
          told = "";
        } catch (error) {
          const { message } = error as Error;
          // Seen once, it may be that the files are being replaced at this moment.
          if (message === suspected && message !== told) {
            logger.error({ door, problem: message }, "the new certificate is refused; the old one stays in use");
            told = message;
          }
          suspected = message;
        }
        if (warned !== current && current.validToDate.getTime() - clock().getTime() < EXPIRES_SOON_MS) {
          warned = current;
          logger.warn({ door, expires_at: current.validToDate.toISOString() }, "the certificate in use expires soon");
        }
      }

      let looking = false;
      const timer = setInterval(() => {
        if (looking) return;
        looking = true;
        void look().finally(() => {
          looking = false;
        });
      }, pollMs).unref();
      return { [Symbol.dispose]: () => clearInterval(timer) };
    },
  };
}

type Contents = { readonly cert: Buffer; readonly key: Buffer; readonly clientCa: Buffer | undefined };

async function readFiles({ certFile, keyFile, clientCaFile }: ServerTlsFiles): Promise<Contents> {
  const [cert, key, clientCa] = await Promise.all([
    readPem(certFile),
    readPem(keyFile),
    clientCaFile === undefined ? undefined : readPem(clientCaFile),
  ]);
  return { cert, key, clientCa };
}

async function readPem(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    throw new Error(`${path} cannot be read (${(error as NodeJS.ErrnoException).code})`);
  }
}

function isSame(one: Contents, other: Contents): boolean {
  const isEqual = (left: Buffer | undefined, right: Buffer | undefined) => left === right || (left && right && left.equals(right)) === true;
  return isEqual(one.cert, other.cert) && isEqual(one.key, other.key) && isEqual(one.clientCa, other.clientCa);
}

/** All that can be known before a client comes: OpenSSL takes an expired certificate, and one cut short at its end. */
function check(
  files: ServerTlsFiles,
  { cert, key, clientCa }: Contents,
  now: Date,
): { context: SecureContextOptions; certificate: X509Certificate } {
  const certificate = parseCertificates(files.certFile, cert);
  if (certificate.validToDate <= now)
    throw new Error(`the certificate in ${files.certFile} expired at ${certificate.validToDate.toISOString()}`);
  if (!certificate.checkPrivateKey(parseKey(files.keyFile, key)))
    throw new Error(`the key in ${files.keyFile} is not that of the certificate in ${files.certFile}`);
  if (files.clientCaFile !== undefined && clientCa) parseCertificates(files.clientCaFile, clientCa);
  const context: SecureContextOptions = { cert, key, ...(clientCa && { ca: clientCa }), minVersion: "TLSv1.2" };
  createSecureContext(context);
  return { context, certificate };
}

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]*(-----END CERTIFICATE-----)?/g;

/** The first of the certificates in a file, all of which must be sound. */
function parseCertificates(path: string, pem: Buffer): X509Certificate {
  try {
    const [first] = (pem.toString("latin1").match(PEM_CERTIFICATE) ?? []).map((text) => new X509Certificate(text));
    if (first) return first;
  } catch {
    // OpenSSL's words for it, such as "bad base64 decode", do not help.
  }
  throw new Error(`${path} does not hold certificates in PEM, all of them whole`);
}

function parseKey(path: string, pem: Buffer): KeyObject {
  try {
    return createPrivateKey(pem);
  } catch {
    throw new Error(`${path} does not hold a private key in PEM, without a passphrase`);
  }
}

/** The first DNS name, without the star of one that stands for many. */
function nameOf({ subjectAltName = "" }: X509Certificate): string {
  const name = /(?:^|, )DNS:([^,"]+)/.exec(subjectAltName)?.[1] ?? "";
  return name.startsWith("*.") ? `ordertrail${name.slice(1)}` : name;
}
