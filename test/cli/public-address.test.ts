import { describe, expect, it } from "vitest";
import { publicAddress } from "../../src/cli/public-address.ts";

describe("publicAddress", () => {
  it.each([
    ["mongodb://127.0.0.1:27017/?replicaSet=rs0", "mongodb://127.0.0.1:27017/?replicaSet=rs0"],
    ["mongodb://me:secret@one,two:27018/db?replicaSet=rs0&authSource=admin", "mongodb://***@one,two:27018/?replicaSet=rs0"],
    ["mongodb://me:sec/ret@p@one/db", "mongodb://***@one"],
    ["mongodb+srv://me@one.example/?authMechanismProperties=AWS_SESSION_TOKEN:secret", "mongodb+srv://***@one.example"],
    ["mongodb://one/?tlsCertificateKeyFilePassword=secret@x", "mongodb://one"],
    ["nats://127.0.0.1:4222", "nats://127.0.0.1:4222"],
    ["nats://token-secret@one:4222", "nats://***@one:4222"],
    ["nats://me:secret@one:4222,tls://me:secret@two:4222", "nats://***@one:4222,tls://***@two:4222"],
  ])("shows of %s no more than %s", (url, shown) => {
    expect(publicAddress(url)).toBe(shown);
    expect(publicAddress(url)).not.toContain("secret");
  });
});
