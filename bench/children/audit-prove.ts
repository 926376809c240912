import { create, toBinary } from "@bufbuild/protobuf";
import { GetInclusionProofRequestSchema } from "../../src/gen/ordertrail/v1/audit_service_pb.js";
import { serveParent } from "../child.ts";
import { createGrpcCaller } from "../grpc-caller.ts";
import { drive, type Load, type LoadFigures } from "../load.ts";
import type { AuditConnection } from "./audit-app.ts";

/** Where the log is published, and orders that it has. */
export type ProveKnowledge = AuditConnection & { readonly orderIds: readonly string[] };

/** Asks for the proofs of all entries of an order, of one order after the other. */
await serveParent<ProveKnowledge, Load, LoadFigures>(async ({ grpc, token, orderIds }) => {
  const caller = createGrpcCaller(grpc, token);
  const requests = orderIds.map((value) =>
    toBinary(GetInclusionProofRequestSchema, create(GetInclusionProofRequestSchema, { entry: { case: "orderId", value } })),
  );
  let asked = 0;
  return {
    answer: (load) =>
      drive(() => caller.call("/ordertrail.v1.AuditService/GetInclusionProof", requests[asked++ % requests.length] as Uint8Array), load),
    close: async () => caller.close(),
  };
});
