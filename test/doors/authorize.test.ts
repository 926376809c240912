import pino from "pino";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createDenials } from "../../src/access/denials.ts";
import { PERMISSIONS, type Permission } from "../../src/access/permissions.ts";
import { createDispatcher } from "../../src/doors/dispatch.ts";
import { parseProxies } from "../../src/doors/proxies.ts";
import { Door, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { verifyCannedToken } from "./canned-services.ts";

const PATH = "GET /only-for-auditors";
const table = PERMISSIONS as Map<string, Permission>;
const logger = pino({ level: "silent" });
const clock = () => new Date();

describe("a path that is no RPC", () => {
  beforeEach(() => void table.set(PATH, { roles: [Role.AUDITOR], reach: "all" }));
  afterEach(() => void table.delete(PATH));

  const authorize = (path: string, token?: string) =>
    createDispatcher({
      services: [],
      verifyToken: verifyCannedToken,
      denials: createDenials({ perMinute: 10, logger, clock }),
      trustedProxies: parseProxies([]),
      logger,
      clock,
      defaultDeadlineMs: 1000,
      maxDeadlineMs: 1000,
      stopping: new AbortController().signal,
    }).authorize(path, { door: Door.REST, traceId: "trace-1", peer: "here", authorization: token && `Bearer ${token}` });

  it("is open to the roles of its line in the table, and to nobody when it has none", async () => {
    await expect(authorize(PATH, "auditor-ann")).resolves.toEqual({ role: Role.AUDITOR, subject: "ann" });
    await expect(authorize(PATH, "customer-ann")).rejects.toMatchObject({ reason: "PERMISSION_DENIED" });
    await expect(authorize(PATH)).rejects.toMatchObject({ reason: "UNAUTHENTICATED" });
    await expect(authorize("GET /unknown", "operator-ann")).rejects.toMatchObject({ reason: "PERMISSION_DENIED" });
    await expect(authorize("GET /healthz")).resolves.toMatchObject({ role: Role.UNSPECIFIED });
  });
});
