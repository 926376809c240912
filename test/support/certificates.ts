import "reflect-metadata";
import { randomBytes, webcrypto } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type JsonGeneralName,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator,
} from "@peculiar/x509";

/** A certificate and its private key, in PEM. */
export type Issued = { readonly cert: string; readonly key: string };

export type CertificateRequest = {
  /** Its common name. */
  readonly name: string;
  /** DNS names and IP addresses; by default those of this machine. */
  readonly names?: readonly JsonGeneralName[];
  readonly notBefore?: Date;
  readonly notAfter?: Date;
};

/** Who issues certificates in a test. */
export type Authority = {
  /** Its own certificate, in PEM. */
  readonly cert: string;
  /** A certificate that serves for both ends of a connection. */
  issue(request: CertificateRequest): Promise<Issued>;
};

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const DAY_MS = 24 * 3600 * 1000;
const THIS_MACHINE: readonly JsonGeneralName[] = [
  { type: "dns", value: "localhost" },
  { type: "ip", value: "127.0.0.1" },
];

/** A new certification authority. */
export async function createAuthority(name = "test authority"): Promise<Authority> {
  const keys = await generateKeys();
  const own = await X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: `CN=${name}`,
    ...validity({}),
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [
      new BasicConstraintsExtension(true, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return {
    cert: `${own.toString("pem")}\n`,
    async issue(request) {
      const issued = await generateKeys();
      const cert = await X509CertificateGenerator.create({
        serialNumber: serialNumber(),
        subject: `CN=${request.name}`,
        issuer: own.subject,
        ...validity(request),
        signingAlgorithm: ALGORITHM,
        publicKey: issued.publicKey,
        signingKey: keys.privateKey,
        extensions: [
          new BasicConstraintsExtension(false),
          new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
          new SubjectAlternativeNameExtension([...(request.names ?? THIS_MACHINE)]),
          await AuthorityKeyIdentifierExtension.create(keys.publicKey),
        ],
      });
      return { cert: `${cert.toString("pem")}\n`, key: await pemOf(issued.privateKey) };
    },
  };
}

/** Writes a certificate and its key to a folder, the key first; returns their paths. */
export async function writeIssued(folder: string, file: string, { cert, key }: Issued): Promise<{ certFile: string; keyFile: string }> {
  const certFile = join(folder, `${file}.crt`);
  const keyFile = join(folder, `${file}.key`);
  await writeFile(keyFile, key, { mode: 0o600 });
  await writeFile(certFile, cert);
  return { certFile, keyFile };
}

function generateKeys() {
  return webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
}

function validity({
  notBefore = new Date(Date.now() - DAY_MS),
  notAfter = new Date(Date.now() + 90 * DAY_MS),
}: Partial<CertificateRequest>) {
  return { notBefore, notAfter };
}

function serialNumber(): string {
  return `01${randomBytes(8).toString("hex")}`;
}

async function pemOf(key: webcrypto.CryptoKey): Promise<string> {
  const bytes = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", key));
  return `-----BEGIN PRIVATE KEY-----\n${bytes.toString("base64").replace(/.{64}/g, "$&\n")}\n-----END PRIVATE KEY-----\n`;
}
