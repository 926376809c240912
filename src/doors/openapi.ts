import type { DescService, JsonObject } from "@bufbuild/protobuf";

export function createOpenApi(_services: readonly DescService[]): JsonObject {
  return {};
}
