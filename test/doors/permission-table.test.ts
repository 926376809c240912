import { describe, expect, it } from "vitest";
import { PERMISSIONS, type Permission } from "../../src/access/permissions.ts";
import { openDoors } from "./open-doors.ts";

/** Opens the doors while the table lacks a line. */
async function openWithout(name: string): Promise<unknown> {
  const table = PERMISSIONS as Map<string, Permission>;
  const line = table.get(name);
  if (!line) throw new Error(`the table has no ${name}`);
  table.delete(name);
  try {
    await using _ = await openDoors();
    return undefined;
  } catch (error) {
    return error;
  } finally {
    table.set(name, line);
  }
}

describe("a server whose permission table lacks a line", () => {
  it.each([
    "ordertrail.v1.OrderTrackingService/GetTracking",
    "ordertrail.v1.OperationsService/ListProjections",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "GET /readyz",
    "GET /.well-known/jwks.json",
  ])("does not start without %s, and names it", async (name) => {
    expect(String(await openWithout(name))).toContain(`nobody is given permission to call ${name}`);
  });
});
