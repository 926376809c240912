import { readFileSync } from "node:fs";

/** The files with which this process serves others by TLS, in PEM. */
export type ServerTlsFiles = {
  /** The certificate, and after it those that lead to its CA. */
  readonly certFile: string;
  /** Its private key. */
  readonly keyFile: string;
  /** The CAs of client certificates; undefined if none is asked for. */
  readonly clientCaFile: string | undefined;
  /** Whether a client must have one. */
  readonly clientCert: "required" | "optional";
};

/** The files with which this process goes to a server by TLS, in PEM. */
export type ClientTlsFiles = {
  /** The CAs that the server's certificate must come from; undefined for those that Node brings. */
  readonly caFile: string | undefined;
  /** What the server is shown if it asks; undefined for nothing. */
  readonly certFile: string | undefined;
  readonly keyFile: string | undefined;
};

/** What is in the files, by the names that node:tls gives it. Throws an Error that names a file that cannot be read. */
export function readClientTls({ caFile, certFile, keyFile }: ClientTlsFiles): {
  readonly ca?: Buffer;
  readonly cert?: Buffer;
  readonly key?: Buffer;
} {
  return {
    ...(caFile !== undefined && { ca: read(caFile) }),
    ...(certFile !== undefined && { cert: read(certFile) }),
    ...(keyFile !== undefined && { key: read(keyFile) }),
  };
}

function read(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new Error(`${path} cannot be read (${(error as NodeJS.ErrnoException).code})`);
  }
}
