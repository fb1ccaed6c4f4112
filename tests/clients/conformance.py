"""Tencent's own clients against `cvm-export simulate`.

Nobody of this project wrote these clients, so they judge whether the simulated cloud is one. Their code
is not changed; each is told where the simulator is by the settings that its manual names. What they did
and saw becomes the tables of docs/conformance.md, which this program checks (or writes: --write-docs).
"""

import argparse
import configparser
import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import types
import unittest
import urllib.error
import urllib.request
from base64 import urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

from qcloud_cos import CosConfig, CosS3Client
from qcloud_cos.cos_exception import CosClientError, CosServiceError
from tencentcloud.cam.v20190116 import cam_client, models as cam_models
from tencentcloud.common import abstract_client
from tencentcloud.common.common_client import CommonClient
from tencentcloud.common.credential import Credential
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.cvm.v20170312 import cvm_client, models as cvm_models
from tencentcloud.sts.v20180813 import models as sts_models, sts_client

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "conformance.md"
REGION = "ap-guangzhou"
BUCKET = "exports-1250000000"
BUCKET_ABROAD = "far-1250000000"
IMAGE = "img-disk0001"
ROLE = "CVM_QcsRole"
ROLE_TO_TAKE_ON = "ExportOperator"
DISK_BYTES = (3 << 20) + 512 * 7
CHINESE_KEY = "备份 1+1/a&b?.txt"

# The tables of the documentation, in the order in which they stand there.
WORKS, REFUSED = "works", "refused"
ROWS = {WORKS: [], REFUSED: []}

Simulated = types.SimpleNamespace(quick=None, slow=None, relay=None)


# --- What the tests stand on ----------------------------------------------------------------------


class Simulator:
    """A `cvm-export simulate` of its own."""

    def __init__(self, binary, *arguments):
        self.binary = binary
        command = [binary, "simulate", *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        told = {}
        while "TENCENTCLOUD_SECRET_KEY" not in told:
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError(f"{shlex.join(command)} ended with {self.process.wait()}")
            name, value = shlex.split(line)[1].split("=", 1)
            told[name] = value
        self.url = told["CVM_EXPORT_ENDPOINT_URL"]
        self.secret_id = told["TENCENTCLOUD_SECRET_ID"]
        self.secret_key = told["TENCENTCLOUD_SECRET_KEY"]

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()

    def _door(self, method, name, document=None):
        data = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(f"{self.url}/_simulator/{name}", data, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            return answer.read()

    def calls(self, operation):
        """The calls of one operation since `forget_calls`."""
        calls = json.loads(self._door("GET", "calls"))["calls"]
        return [call for call in calls if call["operation"] == operation]

    def forget_calls(self):
        self._door("DELETE", "calls")

    @contextlib.contextmanager
    def faults(self, *faults):
        self._door("PUT", "faults", {"faults": list(faults)})
        try:
            yield
        finally:
            self._door("PUT", "faults", {"faults": []})

    def clock(self, minutes):
        """The server's clock ahead by `minutes`; to its clients that is their own clock behind."""
        effect = {"kind": "clock-offset", "seconds": round(minutes * 60)}
        return self.faults({"call": "*", "effect": effect})


class Relay:
    """An HTTP proxy in front of a simulator, for what only a thing in between can do.

    It takes CONNECT and ends the TLS there, because tccli speaks HTTPS only. While `spoils` is set, it
    changes the first digit of every signature on its way.
    """

    SIGNATURE = re.compile(r"((?:q-s|S)ignature=)([0-9a-f])(?=[0-9a-f]{39})")

    def __init__(self, simulator, folder):
        self.upstream = ("127.0.0.1", int(simulator.url.rsplit(":", 1)[1]))
        self.certificate = folder / "relay.pem"
        key = folder / "relay.key"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
            + ["-nodes", "-days", "2", "-subj", "/CN=the conformance test's relay"]
            + ["-addext", "subjectAltName=DNS:*.tencentcloudapi.com"]
            + ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
            + ["-keyout", key, "-out", self.certificate],
            check=True,
            capture_output=True,
        )
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.certificate, key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.spoils = False
        threading.Thread(target=self._accept, daemon=True).start()

    @contextlib.contextmanager
    def spoiling(self):
        self.spoils = True
        try:
            yield
        finally:
            self.spoils = False

    def stop(self):
        self.listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        # A client that hangs up in the middle is the client's business.
        with contextlib.suppress(OSError):
            head, body = self._receive(client)
            if head.startswith(b"CONNECT "):
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                client = self.context.wrap_socket(client, server_side=True)
                head, body = self._receive(client)
            with contextlib.closing(client), socket.create_connection(self.upstream) as server:
                server.sendall(self._passed(head) + body)
                while answer := server.recv(65536):
                    client.sendall(answer)

    @staticmethod
    def _receive(client):
        """One request: its head and its body."""
        data = b""
        while b"\r\n\r\n" not in data and (more := client.recv(65536)):
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        while length and len(body) < int(length[1]) and (more := client.recv(65536)):
            body += more
        return head, body

    def _passed(self, head):
        # One request for each connection; Latin-1 has a character for every byte.
        head = re.sub(r"(?i)\r\n(proxy-)?connection:[^\r]*", "", head.decode("latin-1"))
        if self.spoils:
            head = self.SIGNATURE.sub(lambda found: found[1] + other_digit(found[2]), head)
        return f"{head}\r\nConnection: close\r\n\r\n".encode("latin-1")


def other_digit(digit):
    """Another hexadecimal digit than the one given."""
    return "1" if digit == "0" else "0"


def crc64(data):
    """CRC-64/XZ by its definition."""
    crc = 0xFFFF_FFFF_FFFF_FFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFF_FFFF_FFFF_FFFF


def crc64_entry(value):
    for _ in range(8):
        value = (value >> 1) ^ (0xC96C_5795_D787_0F42 if value & 1 else 0)
    return value


CRC_TABLE = [crc64_entry(value) for value in range(256)]


def shifted_clock(minutes):
    """The module `time` with a clock that is wrong, for one module of a client."""
    return mock.Mock(wraps=time, time=lambda: time.time() + minutes * 60)


class Case(unittest.TestCase):
    """Tests of one client; every `row` becomes a line of the documentation."""

    client = ""
    versions_of = ()

    def row(self, table, operation, call, result):
        versions = " / ".join(importlib.metadata.version(name) for name in self.versions_of)
        ROWS[table].append((self.client, versions, operation, f"`{call}`", result))

    def works(self, operation, call, result):
        self.row(WORKS, operation, call, result)

    def refused(self, operation, call, result):
        self.row(REFUSED, operation, call, result)


# --- The SDK of the API ---------------------------------------------------------------------------


def profile(simulator, **settings):
    http = HttpProfile(protocol="http", proxy=simulator.url, **settings)
    return ClientProfile(httpProfile=http, language="en-US")


def cvm(simulator=None, secret_id=None, secret_key=None, **settings):
    simulator = simulator or Simulated.quick
    credential = Credential(
        secret_id or simulator.secret_id, secret_key or simulator.secret_key
    )
    return cvm_client.CvmClient(credential, REGION, profile(simulator, **settings))


def cam():
    simulator = Simulated.quick
    credential = Credential(simulator.secret_id, simulator.secret_key)
    return cam_client.CamClient(credential, REGION, profile(simulator))


def request(model, **fields):
    model = model()
    model.from_json_string(json.dumps(fields))
    return model


def export_request(image=IMAGE, prefix="sdk", **fields):
    fields = {"BucketName": BUCKET, "ImageIds": [image], "FileNamePrefixList": [prefix], **fields}
    return request(cvm_models.ExportImagesRequest, **fields)


class ApiCase(Case):
    def assert_code(self, code, call, *arguments):
        """The call fails with the SDK's own exception, which carries this code and a request id."""
        with self.assertRaises(TencentCloudSDKException) as caught:
            call(*arguments)
        self.assertEqual(caught.exception.get_code(), code)
        self.assertTrue(caught.exception.get_message())
        self.assertTrue(caught.exception.get_request_id())


def trust_in(service):
    principal = {"service": [service]}
    statement = {"effect": "allow", "action": "name/sts:AssumeRole", "principal": principal}
    return json.dumps({"version": "2.0", "statement": [statement]})


def policy_for(action):
    statement = {"effect": "allow", "action": [action], "resource": ["*"]}
    return json.dumps({"version": "2.0", "statement": [statement]})


class CvmSdk(ApiCase):
    client = "tencentcloud-sdk-python-cvm"
    versions_of = ("tencentcloud-sdk-python-cvm",)

    def test_the_code_is_that_of_its_own_package(self):
        """tccli brings the whole SDK, which installs the same folder."""
        for name in ("tencentcloud-sdk-python-cvm", "tencentcloud-sdk-python-cam"):
            for file in importlib.metadata.files(name):
                if file.hash and len(file.parts) > 2 and file.suffix == ".py":
                    digest = hashlib.sha256(file.locate().read_bytes()).digest()
                    found = urlsafe_b64encode(digest).decode().rstrip("=")
                    self.assertEqual(found, file.hash.value, file)

    def test_lists_images(self):
        answer = cvm().DescribeImages(request(cvm_models.DescribeImagesRequest, Limit=100))
        images = {image.ImageId: image for image in answer.ImageSet}
        self.assertEqual(answer.TotalCount, len(images))
        self.assertEqual(len(images), 6)
        self.assertEqual(images["img-window03"].Platform, "Windows")
        self.assertTrue(images[IMAGE].SnapshotSet[0].SnapshotId.startswith("snap-"))
        self.works("list images", "DescribeImages(Limit=100)", "6 images, with snapshots")

    def test_looks_up_images(self):
        filters = [{"Name": "image-type", "Values": ["SHARED_IMAGE"]}]
        shared = cvm().DescribeImages(request(cvm_models.DescribeImagesRequest, Filters=filters))
        self.assertEqual([image.ImageId for image in shared.ImageSet], ["img-shared04"])
        named = cvm().DescribeImages(request(cvm_models.DescribeImagesRequest, ImageIds=[IMAGE]))
        self.assertEqual([image.ImageId for image in named.ImageSet], [IMAGE])
        self.works("look up images", "DescribeImages(ImageIds=…), (Filters=…)", "the one meant")

    def test_dry_run(self):
        wanted = export_request("img-linux001", "dry", DryRun=True)
        self.assert_code("DryRunOperation", cvm(Simulated.slow).ExportImages, wanted)
        uploads = cos(Simulated.slow).list_multipart_uploads(Bucket=BUCKET, Prefix="dry_")
        self.assertNotIn("Upload", uploads)
        call = "ExportImages(DryRun=True)"
        self.works("dry run of an export", call, "DryRunOperation, which means yes; nothing starts")

    def test_exports(self):
        answer = cvm().ExportImages(export_request(prefix="whole"))
        self.assertGreater(answer.TaskId, 0)
        self.assertEqual(wait_for(answer.CosPaths[0][1:]), DISK)
        self.works("export", "ExportImages(…)", "the disk's bytes under CosPaths[0]")

    def test_exports_several_disks(self):
        wanted = export_request("img-multi002", "many")
        names = cvm().ExportImages(wanted).CosPaths
        self.assertEqual([name.split("_")[2] for name in names], ["system", "data", "data"])
        wanted.OnlyExportRootDisk = True
        self.assertEqual(cvm().ExportImages(wanted).CosPaths, names[:1])
        self.works(
            "export of several disks", "ExportImages(OnlyExportRootDisk=…)", "3 names; 1 name"
        )

    def test_unsigned_payload(self):
        client = cvm()
        client.profile.unsignedPayload = True
        answer = client.DescribeImages(request(cvm_models.DescribeImagesRequest, Limit=1))
        self.assertEqual(len(answer.ImageSet), 1)
        self.works("body left unsigned", "ClientProfile.unsignedPayload = True", "accepted")

    def test_other_hosts(self):
        for settings in (
            {"endpoint": f"cvm.{REGION}.tencentcloudapi.com"},
            {"endpoint": "cvm.internal.tencentcloudapi.com"},
            {"rootDomain": "intl.tencentcloudapi.com"},
        ):
            Simulated.quick.forget_calls()
            client = cvm(**settings)
            self.assertEqual(len(self.list_images(client).ImageSet), 1)
            (call,) = Simulated.quick.calls("DescribeImages")
            self.assertIn(*settings.values(), call["host"])
        call = "HttpProfile(endpoint=…), (rootDomain=…)"
        self.works("other hosts of the API", call, "regional, internal and international")

    def test_a_changed_signature_is_refused(self):
        signed = abstract_client.AbstractClient._get_tc3_signature

        def spoilt(*arguments):
            signature = signed(*arguments)
            return signature[:-1] + other_digit(signature[-1])

        with mock.patch.object(abstract_client.AbstractClient, "_get_tc3_signature", spoilt):
            self.assert_code("AuthFailure.SignatureFailure", self.list_images)
        self.refused("one digit of the signature", "DescribeImages", "AuthFailure.SignatureFailure")

    def test_a_changed_body_is_refused(self):
        client = cvm()
        send = client.request.send_request

        def altered(sent):
            sent.data = sent.data.replace('"Limit": 1', '"Limit": 2')
            return send(sent)

        with mock.patch.object(client.request, "send_request", altered):
            self.assert_code("AuthFailure.SignatureFailure", lambda: self.list_images(client))
        self.refused("one byte of the body", "DescribeImages", "AuthFailure.SignatureFailure")

    def test_a_wrong_key_is_refused(self):
        client = cvm(secret_key="another")
        self.assert_code("AuthFailure.SignatureFailure", lambda: self.list_images(client))
        self.refused("another secret key", "DescribeImages", "AuthFailure.SignatureFailure")

    def test_an_unknown_secret_id_is_refused(self):
        client = cvm(secret_id="AKIDnobody")
        self.assert_code("AuthFailure.SecretIdNotFound", lambda: self.list_images(client))
        self.refused("unknown SecretId", "DescribeImages", "AuthFailure.SecretIdNotFound")

    def test_a_wrong_clock_is_refused(self):
        for minutes in (-6, 6):
            with mock.patch.object(abstract_client, "time", shifted_clock(minutes)):
                self.assert_code("AuthFailure.SignatureExpire", self.list_images)
        for minutes in (-4, 4):
            with mock.patch.object(abstract_client, "time", shifted_clock(minutes)):
                self.list_images()
        code = "AuthFailure.SignatureExpire; 4 minutes accepted"
        self.refused("clock 6 minutes ahead, 6 behind", "DescribeImages", code)

    def test_an_unknown_parameter_is_refused(self):
        for action, fields in [
            ("DescribeImages", {"ImageNames": ["x"]}),
            ("ExportImages", {"BucketName": BUCKET, "ImageIds": [IMAGE], "ClientToken": "x"}),
        ]:
            self.assert_code("UnknownParameter", cvm().call_json, action, fields)
        call = 'call_json("ExportImages", {…, "ClientToken": …})'
        self.refused("unknown parameter", call, "UnknownParameter")

    def test_an_unknown_action_is_refused(self):
        self.assert_code("InvalidAction", cvm().call_json, "DescribeExports", {})
        self.refused("unknown action", 'call_json("DescribeExports", {})', "InvalidAction")

    def test_what_cannot_be_exported_is_refused(self):
        unsupported = "UnsupportedOperation."
        for what, code, fields in [
            ("a Windows image", unsupported + "WindowsImageExportUnsupported", ["img-window03"]),
            ("a shared image", unsupported + "SharedImageExportUnsupported", ["img-shared04"]),
            ("a disk of 600 GB", unsupported + "ImageTooLargeExportUnsupported", ["img-toobig05"]),
            ("an image that is not there", "InvalidImageId.NotFound", ["img-absent01"]),
        ]:
            for dry in (True, False):
                wanted = export_request(*fields, DryRun=dry)
                self.assert_code(code, cvm().ExportImages, wanted)
            self.refused(f"export of {what}", "ExportImages(…)", code)

    def test_where_cannot_be_exported_is_refused(self):
        code = "InvalidParameterValue.BucketNotFound"
        for bucket in (BUCKET_ABROAD, "exports", "absent-1250000000"):
            self.assert_code(code, cvm().ExportImages, export_request(BucketName=bucket))
        self.refused("bucket of another region, or none", "ExportImages(BucketName=…)", code)
        code = "AuthFailure.CamRoleNameAuthenticateFailed"
        self.assert_code(code, cvm().ExportImages, export_request(RoleName="nobody"))
        self.refused("unknown role", "ExportImages(RoleName=…)", code)

    def test_too_many_calls_are_refused(self):
        def ask(client):
            try:
                client.DescribeImageQuota(cvm_models.DescribeImageQuotaRequest())
            except TencentCloudSDKException as error:
                return error.get_code()
            return ""

        codes = set()
        with ThreadPoolExecutor(8) as pool:
            for _ in range(20):
                codes.update(pool.map(ask, [cvm() for _ in range(32)]))
                if len(codes) > 1:
                    break
        self.assertEqual(codes, {"", "RequestLimitExceeded"})
        self.refused("over 10 calls in a second", "DescribeImageQuota", "RequestLimitExceeded")

    @staticmethod
    def list_images(client=None):
        return (client or cvm()).DescribeImages(request(cvm_models.DescribeImagesRequest, Limit=1))


class CamSdk(ApiCase):
    client = "tencentcloud-sdk-python-cam"
    versions_of = ("tencentcloud-sdk-python-cam",)

    def test_shows_the_role(self):
        answer = cam().GetRole(request(cam_models.GetRoleRequest, RoleName=ROLE))
        self.assertEqual(answer.RoleInfo.RoleName, ROLE)
        self.assertIn("cvm", json.dumps(json.loads(answer.RoleInfo.PolicyDocument)))
        self.works("show a role", "GetRole(RoleName=…)", "its name and whom it trusts")

    def test_lists_the_role_s_policies(self):
        fields = {"RoleName": ROLE, "Page": 1, "Rp": 20}
        wanted = request(cam_models.ListAttachedRolePoliciesRequest, **fields)
        answer = cam().ListAttachedRolePolicies(wanted)
        self.assertEqual(answer.TotalNum, len(answer.List))
        self.assertTrue(answer.List[0].PolicyName)
        self.works("list its policies", "ListAttachedRolePolicies(…)", "the policies' names")

    def test_tells_the_account(self):
        answer = cam().GetUserAppId(cam_models.GetUserAppIdRequest())
        self.assertEqual(answer.AppId, 1250000000)
        self.works("tell the account", "GetUserAppId()", "AppId 1250000000")

    def test_makes_and_removes_a_role(self):
        client = cam()

        def call(action, **fields):
            wanted = request(getattr(cam_models, f"{action}Request"), **fields)
            return getattr(client, action)(wanted)

        trust = trust_in("scf.qcloud.com")
        self.assertTrue(call("CreateRole", RoleName="sdk", PolicyDocument=trust).RoleId)
        call("UpdateAssumeRolePolicy", RoleName="sdk", PolicyDocument=trust_in("cvm.qcloud.com"))
        document = call("GetRole", RoleName="sdk").RoleInfo.PolicyDocument
        self.assertIn("cvm.qcloud.com", document)
        allowed = policy_for("name/cos:PutObject")
        number = call("CreatePolicy", PolicyName="sdk", PolicyDocument=allowed).PolicyId
        call("UpdatePolicy", PolicyId=number, PolicyDocument=policy_for("name/cos:*"))
        document = call("GetPolicy", PolicyId=number).PolicyDocument
        self.assertEqual(json.loads(document), json.loads(policy_for("name/cos:*")))
        call("AttachRolePolicy", AttachRoleName="sdk", PolicyId=number)
        [own] = call("ListPolicies", Rp=20, Page=1, Scope="Local", Keyword="sdk").List
        self.assertEqual((own.PolicyId, own.AttachEntityCount), (number, 1))
        carried = call("ListAttachedRolePolicies", RoleName="sdk", Page=1, Rp=20).List
        self.assertEqual([policy.PolicyId for policy in carried], [number])
        self.works("make a role", "CreateRole, CreatePolicy, AttachRolePolicy, …", "all are there")
        call("DetachRolePolicy", DetachRoleName="sdk", PolicyId=number)
        call("DeletePolicy", PolicyId=[number])
        call("DeleteRole", RoleName="sdk")
        wanted = request(cam_models.GetRoleRequest, RoleName="sdk")
        self.assert_code("InvalidParameter.RoleNotExist", client.GetRole, wanted)
        self.works("remove a role", "DetachRolePolicy, DeletePolicy, DeleteRole", "all are gone")

    def test_a_name_that_is_taken_is_refused(self):
        wanted = request(
            cam_models.CreateRoleRequest, RoleName=ROLE, PolicyDocument=trust_in("cvm.qcloud.com")
        )
        self.assert_code("InvalidParameter.RoleNameInUse", cam().CreateRole, wanted)
        self.refused("name in use", "CreateRole(RoleName=…)", "InvalidParameter.RoleNameInUse")

    def test_a_document_that_is_none_is_refused(self):
        fields = {"PolicyName": "sdk2", "PolicyDocument": "{"}
        wanted = request(cam_models.CreatePolicyRequest, **fields)
        code = "InvalidParameter.PolicyDocumentError"
        self.assert_code(code, cam().CreatePolicy, wanted)
        self.refused("no document", 'CreatePolicy(PolicyDocument="{")', code)

    def test_an_absent_role_is_refused(self):
        wanted = request(cam_models.GetRoleRequest, RoleName="nobody")
        self.assert_code("InvalidParameter.RoleNotExist", cam().GetRole, wanted)
        self.refused("unknown role", "GetRole(RoleName=…)", "InvalidParameter.RoleNotExist")

    def test_an_unknown_parameter_is_refused(self):
        fields = {"RoleName": ROLE, "Bogus": 1}
        self.assert_code("UnknownParameter", cam().call_json, "GetRole", fields)
        self.refused("unknown parameter", 'call_json("GetRole", {…, "Bogus": 1})', "UnknownParameter")


class StsSdk(ApiCase):
    client = "tencentcloud-sdk-python (sts)"
    versions_of = ("tencentcloud-sdk-python",)
    arn = f"qcs::cam::uin/100000000001:roleName/{ROLE_TO_TAKE_ON}"

    @staticmethod
    def sts():
        simulator = Simulated.quick
        credential = Credential(simulator.secret_id, simulator.secret_key)
        return sts_client.StsClient(credential, REGION, profile(simulator))

    def test_tells_the_caller(self):
        answer = self.sts().GetCallerIdentity(sts_models.GetCallerIdentityRequest())
        self.assertEqual(answer.AccountId, "100000000001")
        self.works("tell the caller", "GetCallerIdentity()", "account and ARN")

    def test_takes_a_role_on(self):
        fields = {"RoleArn": self.arn, "RoleSessionName": "sdk", "DurationSeconds": 1800}
        answer = self.sts().AssumeRole(request(sts_models.AssumeRoleRequest, **fields))
        self.assertLessEqual(abs(answer.ExpiredTime - time.time() - 1800), 60)
        keys = answer.Credentials
        credential = Credential(keys.TmpSecretId, keys.TmpSecretKey, keys.Token)
        client = cvm_client.CvmClient(credential, REGION, profile(Simulated.quick))
        self.assertEqual(len(CvmSdk.list_images(client).ImageSet), 1)
        self.works("take a role on", "AssumeRole(…)", "keys that list images")
        credential = Credential(keys.TmpSecretId, keys.TmpSecretKey, "another")
        client = cvm_client.CvmClient(credential, REGION, profile(Simulated.quick))
        self.assert_code("AuthFailure.TokenFailure", CvmSdk.list_images, client)
        self.refused("wrong token", "Credential(…, token)", "AuthFailure.TokenFailure")

    def test_a_role_that_does_not_trust_the_caller_is_refused(self):
        arn = f"qcs::cam::uin/100000000001:roleName/{ROLE}"
        wanted = request(sts_models.AssumeRoleRequest, RoleArn=arn, RoleSessionName="sdk")
        self.assert_code("UnauthorizedOperation", self.sts().AssumeRole, wanted)
        self.refused("role of a service", "AssumeRole(RoleArn=…)", "UnauthorizedOperation")

    def test_a_role_that_is_none_is_refused(self):
        arn = self.arn + "x"
        wanted = request(sts_models.AssumeRoleRequest, RoleArn=arn, RoleSessionName="sdk")
        code = "ResourceNotFound.RoleNotFound"
        self.assert_code(code, self.sts().AssumeRole, wanted)
        self.refused("unknown role", "AssumeRole(RoleArn=…)", code)

    def test_a_foreign_identity_is_refused(self):
        client = CommonClient("sts", "2018-08-13", None, REGION, profile(Simulated.quick))
        fields = {
            "ProviderId": "nobody",
            "WebIdentityToken": "token",
            "RoleArn": self.arn,
            "RoleSessionName": "sdk",
        }
        code = "InvalidParameter.OIDCProviderNotFound"
        action = "AssumeRoleWithWebIdentity"
        self.assert_code(code, lambda: client.call_json(action, fields, options={"SkipSign": True}))
        self.refused("unknown provider", f"{action}(…), not signed", code)


# --- The SDK of COS -------------------------------------------------------------------------------


def cos(simulator=None, region=REGION, secret_id=None):
    simulator = simulator or Simulated.quick
    config = CosConfig(
        Region=region,
        SecretId=secret_id or simulator.secret_id,
        SecretKey=simulator.secret_key,
        Scheme="http",
        Proxies={"http": simulator.url},
    )
    return CosS3Client(config)


def keys(prefix, simulator=None):
    found = cos(simulator).list_objects(Bucket=BUCKET, Prefix=prefix)
    return [item["Key"] for item in found.get("Contents", [])]


def content(key):
    return cos().get_object(Bucket=BUCKET, Key=key)["Body"].get_raw_stream().read()


def wait_for(key):
    """The bytes of an object that an export is about to finish."""
    deadline = time.monotonic() + 30
    while not cos().object_exists(Bucket=BUCKET, Key=key):
        if time.monotonic() > deadline:
            raise AssertionError(f"{key} did not appear")
        time.sleep(0.05)
    return content(key)


def fetch(url):
    """GET through the simulator as the proxy, by a client that knows nothing of COS."""
    proxies = urllib.request.ProxyHandler({"http": Simulated.quick.url})
    with urllib.request.build_opener(proxies).open(url) as answer:
        return answer.read()


class CosSdk(Case):
    client = "cos-python-sdk-v5"
    versions_of = ("cos-python-sdk-v5",)

    @classmethod
    def setUpClass(cls):
        answer = cvm().ExportImages(export_request(prefix="fetch"))
        cls.key = answer.CosPaths[0][1:]
        wait_for(cls.key)

    def assert_code(self, status, code, call, *arguments, **fields):
        """The call fails with the SDK's own exception, which carries this status and this code."""
        with self.assertRaises(CosServiceError) as caught:
            call(*arguments, **fields)
        error = caught.exception
        self.assertEqual((error.get_status_code(), error.get_error_code()), (status, code))
        self.assertTrue(error.get_request_id())

    def test_lists_buckets(self):
        buckets = cos().list_buckets()["Buckets"]["Bucket"]
        places = {bucket["Name"]: bucket["Location"] for bucket in buckets}
        self.assertEqual(places, {BUCKET: REGION, BUCKET_ABROAD: "ap-singapore"})
        self.works("list buckets", "list_buckets()", "2 buckets with their regions")

    def test_finds_a_bucket(self):
        self.assertEqual(cos().head_bucket(Bucket=BUCKET)["x-cos-bucket-region"], REGION)
        self.assertTrue(cos().bucket_exists(Bucket=BUCKET))
        self.works("find a bucket", "head_bucket(…)", "200, its region")

    def test_other_hosts(self):
        simulator = Simulated.quick
        for host in (f"cos.{REGION}.tencentcos.cn", f"cos-internal.{REGION}.tencentcos.cn"):
            config = CosConfig(
                Endpoint=host,
                SecretId=simulator.secret_id,
                SecretKey=simulator.secret_key,
                Scheme="http",
                Proxies={"http": simulator.url},
            )
            simulator.forget_calls()
            self.assertTrue(CosS3Client(config).bucket_exists(Bucket=BUCKET))
            (call,) = simulator.calls("HeadBucket")
            self.assertEqual(call["host"], f"{BUCKET}.{host}")
        self.works("other hosts of COS", "CosConfig(Endpoint=…)", "newer suffix, private network")

    def test_lists_objects(self):
        listed = cos().list_objects(Bucket=BUCKET, Prefix="fetch_", EncodingType="url")
        (item,) = listed["Contents"]
        self.assertEqual((item["Key"], item["Size"]), (self.key, str(len(DISK))))
        for name in ("page/1", "page/2", "page/3"):
            cos().put_object(Bucket=BUCKET, Key=name, Body=name.encode())
        pages, marker = [], ""
        while marker is not None:
            page = cos().list_objects(Bucket=BUCKET, Prefix="page/", MaxKeys=2, Marker=marker)
            pages.append([item["Key"] for item in page["Contents"]])
            marker = page.get("NextMarker")
        self.assertEqual(pages, [["page/1", "page/2"], ["page/3"]])
        folders = cos().list_objects(Bucket=BUCKET, Delimiter="/")["CommonPrefixes"]
        self.assertIn({"Prefix": "page/"}, folders)
        self.works("list objects", "list_objects(Prefix, Delimiter, MaxKeys, …)", "pages, folders")

    def test_heads_an_object(self):
        head = cos().head_object(Bucket=BUCKET, Key=self.key)
        self.assertEqual(head["Content-Length"], str(len(DISK)))
        self.assertEqual(head["x-cos-hash-crc64ecma"], str(DISK_CRC64))
        self.works("head an object", "head_object(…)", "length; CRC-64 as computed here")

    def test_gets_an_object(self):
        answer = cos().get_object(Bucket=BUCKET, Key=self.key)
        self.assertEqual(answer["Body"].get_raw_stream().read(), DISK)
        self.assertEqual(answer["x-cos-hash-crc64ecma"], str(DISK_CRC64))
        self.works("get an object", "get_object(…)", "the disk's bytes; CRC-64 as computed here")

    def test_gets_a_range(self):
        answer = cos().get_object(Bucket=BUCKET, Key=self.key, Range="bytes=1000-1999")
        self.assertEqual(answer["Body"].get_raw_stream().read(), DISK[1000:2000])
        self.assertEqual(answer["Content-Range"], f"bytes 1000-1999/{len(DISK)}")
        self.assertEqual(answer["x-cos-hash-crc64ecma"], str(DISK_CRC64))
        tail = cos().get_object(Bucket=BUCKET, Key=self.key, Range="bytes=-7")
        self.assertEqual(tail["Body"].get_raw_stream().read(), DISK[-7:])
        result = "the bytes meant; CRC-64 of the whole object"
        self.works("get a range", 'get_object(Range="bytes=…")', result)

    def download(self, name):
        target = Path(os.environ["HOME"]) / name
        cos().download_file(
            Bucket=BUCKET,
            Key=self.key,
            DestFilePath=str(target),
            PartSize=1,
            MAXThread=3,
            EnableCRC=True,
        )
        return target.read_bytes()

    def ranges(self):
        return [call["range"] for call in Simulated.quick.calls("GetObject")]

    def test_downloads_in_parallel(self):
        Simulated.quick.forget_calls()
        self.assertEqual(self.download("parallel.raw"), DISK)
        self.assertEqual(len(set(self.ranges())), 4)
        self.works(
            "download in parallel",
            "download_file(PartSize=1, MAXThread=3, EnableCRC=True)",
            "4 ranges, the disk's bytes, the SDK's own CRC-64 check passes",
        )

    def test_resumes_a_download(self):
        effect = {"kind": "cos-error", "status": 403, "code": "AccessDenied"}
        with Simulated.quick.faults({"call": "GetObject", "occurrence": 3, "effect": effect}):
            with self.assertRaises(CosClientError):
                self.download("resumed.raw")
        Simulated.quick.forget_calls()
        self.assertEqual(self.download("resumed.raw"), DISK)
        self.assertEqual(len(self.ranges()), 1)
        result = "asks for the 1 range that failed, then the CRC-64 check passes"
        self.works("resume a download", "download_file(…) again", result)

    def test_notices_a_flipped_byte(self):
        effect = {"kind": "flipped-byte", "at": 1}
        with Simulated.quick.faults({"call": "GetObject", "occurrence": 2, "effect": effect}):
            with self.assertRaises(CosClientError) as caught:
                self.download("flipped.raw")
        self.assertIn("crc", str(caught.exception).lower())
        self.refused(
            "one byte flipped on the way", "download_file(EnableCRC=True)", "CosClientError: CRC"
        )

    def test_puts_gets_and_deletes(self):
        body = "内容".encode()
        cos().put_object(Bucket=BUCKET, Key=CHINESE_KEY, Body=body, EnableMD5=True)
        self.assertEqual(content(CHINESE_KEY), body)
        self.assertEqual(keys("备份"), [CHINESE_KEY])
        cos().delete_object(Bucket=BUCKET, Key=CHINESE_KEY)
        self.assertFalse(cos().object_exists(Bucket=BUCKET, Key=CHINESE_KEY))
        call = "put_object(EnableMD5=True), delete_object(…)"
        self.works("put and delete, odd names", call, "the bytes are back; gone after")

    def test_deletes_many(self):
        cos().put_object(Bucket=BUCKET, Key="many/1", Body=b"1")
        wanted = {"Quiet": "false", "Object": [{"Key": "many/1"}, {"Key": "many/2"}]}
        answer = cos().delete_objects(Bucket=BUCKET, Delete=wanted)
        self.assertEqual(len(answer["Deleted"]), 2)
        self.assertFalse(keys("many/"))
        self.works("delete many", "delete_objects(…)", "both told as deleted")

    def test_uploads_in_parts(self):
        source = Path(os.environ["HOME"]) / "upload.raw"
        source.write_bytes(DISK)
        cos().upload_file(
            Bucket=BUCKET, Key="up/disk", LocalFilePath=str(source), PartSize=1, MAXThread=3
        )
        head = cos().head_object(Bucket=BUCKET, Key="up/disk")
        self.assertEqual(head["x-cos-hash-crc64ecma"], str(DISK_CRC64))
        self.assertTrue(head["ETag"].endswith('-4"'))
        call = "upload_file(PartSize=1, MAXThread=3)"
        self.works("upload in parts", call, "4 parts; CRC-64 as computed here")

    def test_watches_an_export(self):
        simulator = Simulated.slow
        told = cvm(simulator).ExportImages(export_request("img-linux001", "run")).CosPaths[0][1:]
        listed = cos(simulator).list_multipart_uploads(Bucket=BUCKET, Prefix="run_")
        (upload,) = listed["Upload"]
        self.assertEqual(upload["Key"], told)
        deadline = time.monotonic() + 30
        parts = []
        while len(parts) < 2 and time.monotonic() < deadline:
            answer = cos(simulator).list_parts(
                Bucket=BUCKET, Key=told, UploadId=upload["UploadId"], MaxParts=1000
            )
            parts = answer.get("Part", [])
            time.sleep(0.1)
        self.assertEqual([part["PartNumber"] for part in parts[:2]], ["1", "2"])
        self.assertFalse(keys("run_", simulator))
        self.works("see an export run", "list_multipart_uploads(Prefix=…)", "its upload, no object")
        self.works("see how far it is", "list_parts(UploadId=…)", "parts that become more")
        wrong = {"Bucket": BUCKET, "Key": told, "UploadId": "none"}
        self.assert_code(404, "NoSuchUpload", cos(simulator).list_parts, **wrong)
        self.refused("unknown upload", "list_parts(UploadId=…)", "404 NoSuchUpload")

    def test_signs_links(self):
        params = {"response-content-type": "text/x y"}
        fields = {"Bucket": BUCKET, "Key": self.key, "Method": "GET"}
        self.assertEqual(fetch(cos().get_presigned_url(Params=params, **fields)), DISK)
        self.assertEqual(fetch(cos().get_presigned_url(SignHost=False, **fields)), DISK)
        self.works("sign a link", "get_presigned_url(Params=…, SignHost=…)", "the disk's bytes")
        with self.assertRaises(urllib.error.HTTPError) as caught:
            fetch(cos().get_presigned_url(Expired=-1, **fields))
        body = caught.exception.read()
        self.assertEqual(caught.exception.code, 403)
        self.assertIn(b"<Code>AccessDenied</Code><Message>Request has expired", body)
        self.refused("a link too old", "get_presigned_url(Expired=-1)", "403 AccessDenied")

    def test_a_changed_signature_is_refused(self):
        from qcloud_cos import cos_auth

        signed = cos_auth.CosS3Auth.__call__

        def spoilt(auth, sent):
            sent = signed(auth, sent)
            header = sent.headers["Authorization"]
            sent.headers["Authorization"] = header[:-1] + other_digit(header[-1])
            return sent

        with mock.patch.object(cos_auth.CosS3Auth, "__call__", spoilt):
            self.assert_code(403, "SignatureDoesNotMatch", cos().list_objects, Bucket=BUCKET)
            fields = {"Bucket": BUCKET, "Key": self.key}
            self.assert_code(403, "SignatureDoesNotMatch", cos().get_object, **fields)
        code = "403 SignatureDoesNotMatch"
        self.refused("one digit of the signature", "list_objects, get_object", code)

    def test_an_unknown_secret_id_is_refused(self):
        client = cos(secret_id="AKIDnobody")
        self.assert_code(403, "InvalidAccessKeyId", client.list_objects, Bucket=BUCKET)
        self.refused("unknown SecretId", "list_objects(…)", "403 InvalidAccessKeyId")

    def test_a_wrong_clock_is_refused(self):
        def listed_with_clock(minutes):
            with mock.patch("qcloud_cos.cos_auth.time", shifted_clock(minutes)):
                return cos().list_objects(Bucket=BUCKET)

        # The SDK starts the window a minute early, so that this is 15.5 minutes for the server.
        self.assert_code(403, "RequestTimeTooSkewed", listed_with_clock, 16.5)
        for minutes in (14, 15.5, -16.5):
            listed_with_clock(minutes)
        code = "403 RequestTimeTooSkewed; 15.5 accepted, for its window starts a minute early"
        self.refused("clock 16.5 minutes ahead", "list_objects(…)", code)
        # Behind, the window is what counts, and the SDK's are 10,000 seconds long.
        self.assert_code(403, "AccessDenied", listed_with_clock, -170)
        code = "403 AccessDenied, Request has expired; 16.5 minutes accepted"
        self.refused("clock 170 minutes behind", "list_objects(…)", code)

    def test_the_wrong_region_is_refused(self):
        client = cos(region="ap-shanghai")
        self.assert_code(404, "NoSuchBucket", client.list_objects, Bucket=BUCKET)
        self.assert_code(404, "NoSuchResource", client.head_bucket, Bucket=BUCKET)
        result = "404 NoSuchBucket; head: 404, NoSuchResource by the SDK itself"
        self.refused("bucket asked in another region", "list_objects, head_bucket", result)

    def test_an_absent_object_is_told(self):
        fields = {"Bucket": BUCKET, "Key": "absent"}
        self.assert_code(404, "NoSuchKey", cos().get_object, **fields)
        self.assert_code(404, "NoSuchResource", cos().head_object, **fields)
        result = "404 NoSuchKey; head: 404, NoSuchResource by the SDK itself"
        self.refused("object that is not there", "get_object, head_object", result)

    def test_a_range_beyond_the_end_is_refused(self):
        fields = {"Bucket": BUCKET, "Key": self.key, "Range": f"bytes={len(DISK)}-"}
        self.assert_code(416, "InvalidRange", cos().get_object, **fields)
        self.refused("range beyond the end", "get_object(Range=…)", "416 InvalidRange")

    def test_a_changed_object_is_told(self):
        fields = {"Bucket": BUCKET, "Key": self.key, "IfMatch": '"another"'}
        self.assert_code(412, "PreconditionFailed", cos().get_object, **fields)
        self.refused("If-Match of another ETag", "get_object(IfMatch=…)", "412 PreconditionFailed")

    def test_a_damaged_upload_is_refused(self):
        fields = {"Key": "damaged", "Body": b"x", "ContentMD5": "mQ/fVh815F3k6TAUm8m0eg=="}
        self.assert_code(400, "BadDigest", cos().put_object, Bucket=BUCKET, **fields)
        self.refused("Content-MD5 of other bytes", "put_object(ContentMD5=…)", "400 BadDigest")


# --- The command lines ----------------------------------------------------------------------------


def run_tool(name, *arguments, **variables):
    """Runs a client's program with no settings but these; its exit code and all that it printed."""
    environment = {
        "HOME": os.environ["HOME"],
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        # What newer Pythons think of a client's code is no output of the client.
        "PYTHONWARNINGS": "ignore",
        **variables,
    }
    program = Path(sys.executable).parent / name
    done = subprocess.run(
        [program, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout


class Tccli(Case):
    client = "tccli"
    versions_of = ("tccli",)

    @classmethod
    def setUpClass(cls):
        # tccli trusts the bundle of `certifi` and has no setting for another; a copy of that package
        # with one more certificate is what an administrator would install.
        import certifi

        cls.trust = Path(os.environ["HOME"]) / "trust"
        copy = cls.trust / "certifi"
        shutil.copytree(Path(certifi.__file__).parent, copy)
        with open(copy / "cacert.pem", "a") as bundle:
            bundle.write("\n" + Simulated.relay.certificate.read_text())

    def run_tccli(self, service, action, *arguments, **variables):
        simulator = Simulated.quick
        settings = {
            "TENCENTCLOUD_SECRET_ID": simulator.secret_id,
            "TENCENTCLOUD_SECRET_KEY": simulator.secret_key,
            "TENCENTCLOUD_REGION": REGION,
            "https_proxy": Simulated.relay.url,
            "PYTHONPATH": str(self.trust),
            **variables,
        }
        return run_tool("tccli", service, action, *arguments, "--language", "en-US", **settings)

    def answer(self, *arguments):
        code, text = self.run_tccli(*arguments)
        self.assertEqual(code, 0, text)
        return json.loads(text)

    def assert_code(self, expected, *arguments, **variables):
        code, text = self.run_tccli(*arguments, **variables)
        self.assertEqual(code, 255, text)
        self.assertIn(f"[TencentCloudSDKException] code:{expected} message:", text)

    EXPORT = ("cvm", "ExportImages", "--BucketName", BUCKET, "--FileNamePrefixList", '["tccli"]')

    def test_lists_images(self):
        answer = self.answer("cvm", "DescribeImages", "--Limit", "100")
        self.assertEqual(answer["TotalCount"], 6)
        self.assertIn(IMAGE, [image["ImageId"] for image in answer["ImageSet"]])
        self.works("list images", "tccli cvm DescribeImages --Limit 100", "6 images")

    def test_dry_run(self):
        wanted = ("--ImageIds", json.dumps([IMAGE]), "--DryRun", "True")
        self.assert_code("DryRunOperation", *self.EXPORT, *wanted)
        call = "tccli cvm ExportImages … --DryRun True"
        self.works("dry run of an export", call, "DryRunOperation, which means yes, as exit 255")

    def test_exports(self):
        answer = self.answer(*self.EXPORT, "--ImageIds", json.dumps([IMAGE]))
        self.assertGreater(answer["TaskId"], 0)
        self.assertEqual(wait_for(answer["CosPaths"][0][1:]), DISK)
        call = "tccli cvm ExportImages --BucketName … --ImageIds …"
        self.works("export", call, "the disk's bytes under CosPaths[0]")

    def test_shows_the_role(self):
        answer = self.answer("cam", "GetRole", "--RoleName", ROLE)
        self.assertEqual(answer["RoleInfo"]["RoleName"], ROLE)
        self.works("show a role", "tccli cam GetRole --RoleName …", "its name and trust")

    def test_lists_the_role_s_policies(self):
        wanted = ("--RoleName", ROLE, "--Page", "1", "--Rp", "20")
        answer = self.answer("cam", "ListAttachedRolePolicies", *wanted)
        self.assertEqual(answer["TotalNum"], len(answer["List"]))
        call = "tccli cam ListAttachedRolePolicies …"
        self.works("list its policies", call, "the policies' names")

    def test_tells_the_account(self):
        self.assertEqual(self.answer("cam", "GetUserAppId")["AppId"], 1250000000)
        self.works("tell the account", "tccli cam GetUserAppId", "AppId 1250000000")

    def test_writes_profiles_that_cvm_export_uses(self):
        simulator = Simulated.quick
        keys = ("secretId", simulator.secret_id, "secretKey", simulator.secret_key, "region", REGION)
        arn = f"qcs::cam::uin/100000000001:roleName/{ROLE_TO_TAKE_ON}"
        role = ("role-arn", arn, "role-session-name", "nightly")
        for name, values in (("plain", keys), ("role", keys + role)):
            code, text = run_tool("tccli", "configure", "set", *values, "--profile", name)
            self.assertEqual(code, 0, text)
            simulator.forget_calls()
            done = subprocess.run(
                [simulator.binary, "images", "--profile", name, "--endpoint-url", simulator.url, "-v"],
                env={"HOME": os.environ["HOME"]},
                capture_output=True,
                text=True,
                timeout=60,
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(IMAGE, done.stdout)
            self.assertIn(f"region: {REGION} (tccli profile `{name}`", done.stderr)
            assumed = [json.loads(call["body"]) for call in simulator.calls("AssumeRole")]
            wanted = {"RoleArn": arn, "RoleSessionName": "nightly"}
            self.assertEqual(assumed, [wanted] if name == "role" else [])
            [call, *_] = simulator.calls("DescribeImages")
            self.assertEqual(call["secret_id"] == simulator.secret_id, name == "plain")
        call = "tccli configure set secretId … --profile NAME, with and without role-arn"
        self.works("write a profile", call, "`cvm-export --profile NAME` uses keys, region and role")

    def test_a_changed_signature_is_refused(self):
        with Simulated.relay.spoiling():
            self.assert_code("AuthFailure.SignatureFailure", "cvm", "DescribeImages")
        call = "tccli cvm DescribeImages, changed on the way"
        self.refused("one digit of the signature", call, "AuthFailure.SignatureFailure, exit 255")

    def test_an_unknown_secret_id_is_refused(self):
        code = "AuthFailure.SecretIdNotFound"
        wanted = ("cvm", "DescribeImages")
        self.assert_code(code, *wanted, TENCENTCLOUD_SECRET_ID="AKIDnobody")
        self.refused("unknown SecretId", "tccli cvm DescribeImages", f"{code}, exit 255")

    def test_a_wrong_clock_is_refused(self):
        for minutes in (-6, 6):
            with Simulated.quick.clock(minutes):
                self.assert_code("AuthFailure.SignatureExpire", "cvm", "DescribeImages")
        with Simulated.quick.clock(4):
            self.answer("cvm", "DescribeImages")
        code = "AuthFailure.SignatureExpire, exit 255; 4 minutes accepted"
        call = "tccli cvm DescribeImages, the server's clock set"
        self.refused("clock 6 minutes ahead, 6 behind", call, code)

    def test_an_unknown_parameter_does_not_leave_it(self):
        Simulated.quick.forget_calls()
        code, text = self.run_tccli("cvm", "DescribeImages", "--Bogus", "1")
        self.assertEqual(code, 255)
        self.assertIn("Unknown options: --Bogus", text)
        self.assertFalse(Simulated.quick.calls("DescribeImages"))
        call = "tccli cvm DescribeImages --Bogus 1"
        self.refused("unknown parameter", call, "exit 255 by tccli itself, nothing is sent")

    def test_a_windows_image_is_refused(self):
        code = "UnsupportedOperation.WindowsImageExportUnsupported"
        self.assert_code(code, *self.EXPORT, "--ImageIds", '["img-window03"]')
        self.refused("export of a Windows image", "tccli cvm ExportImages …", f"{code}, exit 255")

    def test_an_endpoint_with_a_scheme_is_refused(self):
        endpoint = ("--endpoint", "http://cvm.tencentcloudapi.com")
        variables = {"https_proxy": Simulated.quick.url}
        code, text = self.run_tccli("cvm", "DescribeImages", *endpoint, **variables)
        self.assertEqual(code, 255)
        self.assertIn("code:ServerNetworkError message:b'Host and target differ.", text)
        call = "tccli cvm DescribeImages --endpoint http://…"
        result = "400: it signs and sends `Host: http://…`; ServerNetworkError, exit 255"
        self.refused("endpoint with a scheme", call, result)


class Coscmd(Case):
    client = "coscmd"
    versions_of = ("coscmd",)

    @classmethod
    def setUpClass(cls):
        answer = cvm().ExportImages(export_request(prefix="coscmd"))
        cls.key = answer.CosPaths[0][1:]
        wait_for(cls.key)
        cls.configure(Simulated.quick)

    @classmethod
    def configure(cls, simulator, secret_id=None):
        code, text = run_tool(
            *("coscmd", "config", "-a", secret_id or simulator.secret_id),
            *("-s", simulator.secret_key, "-b", BUCKET, "-r", REGION),
            *("--do-not-use-ssl", "--retry", "1"),
        )
        if code:
            raise AssertionError(text)

    def run_coscmd(self, *arguments, proxy=None):
        return run_tool("coscmd", *arguments, http_proxy=proxy or Simulated.quick.url)

    def output(self, *arguments):
        code, text = self.run_coscmd(*arguments)
        self.assertEqual(code, 0, text)
        return text

    def assert_code(self, expected, *arguments, **settings):
        code, text = self.run_coscmd(*arguments, **settings)
        self.assertEqual(code, 255, text)
        self.assertIn(expected, text)

    def test_configures_itself(self):
        config = configparser.ConfigParser()
        config.read(Path(os.environ["HOME"]) / ".cos.conf")
        self.assertEqual(config["common"]["schema"], "http")
        call = "coscmd config -a … -s … -b … -r … --do-not-use-ssl"
        self.works("configure", call, "`~/.cos.conf` with `schema = http`")

    def test_lists_objects(self):
        text = self.output("list", "coscmd_")
        self.assertRegex(text, rf"{self.key} +{len(DISK)} +STANDARD")
        self.works("list objects", "coscmd list PREFIX", "key, size, class")

    def test_tells_of_an_object(self):
        text = self.output("info", self.key)
        self.assertRegex(text, rf"x-cos-hash-crc64ecma +{DISK_CRC64}\b")
        self.works("head an object", "coscmd info KEY", "CRC-64 as computed here")

    def test_downloads(self):
        target = Path(os.environ["HOME"]) / "coscmd.raw"
        self.output("download", self.key, target)
        self.assertEqual(target.read_bytes(), DISK)
        result = "the disk's bytes; it checks nothing itself"
        self.works("download", "coscmd download KEY FILE", result)

    def test_uploads_and_deletes(self):
        source = Path(os.environ["HOME"]) / "upload.bin"
        source.write_bytes(DISK)
        self.output("upload", source, "cmd/up.bin")
        self.assertEqual(content("cmd/up.bin"), DISK)
        self.works("upload", "coscmd upload FILE KEY", "the bytes are there")
        self.output("delete", "-f", "cmd/up.bin")
        self.assertFalse(keys("cmd/"))
        self.works("delete", "coscmd delete -f KEY", "gone")

    def test_signs_links(self):
        url = re.search(r"http://[^'\s]+", self.output("signurl", self.key))[0]
        self.assertEqual(fetch(url), DISK)
        self.works("sign a link", "coscmd signurl KEY", "the disk's bytes")

    def test_sees_an_export_run(self):
        self.configure(Simulated.slow)
        self.addCleanup(self.configure, Simulated.quick)
        told = cvm(Simulated.slow).ExportImages(export_request("img-linux001", "cmdrun"))
        code, text = self.run_coscmd("listparts", "cmdrun_", proxy=Simulated.slow.url)
        self.assertEqual(code, 0, text)
        self.assertIn(f"Key:{told.CosPaths[0][1:]}, UploadId:", text)
        self.works("see an export run", "coscmd listparts PREFIX", "its upload")

    def test_a_changed_signature_is_refused(self):
        proxy = Simulated.relay.url
        self.assertEqual(self.run_coscmd("list", proxy=proxy)[0], 0)
        with Simulated.relay.spoiling():
            self.assert_code("SignatureDoesNotMatch", "list", proxy=proxy)
        result = "SignatureDoesNotMatch, exit 255"
        self.refused("one digit of the signature", "coscmd list, changed on the way", result)

    def test_an_unknown_secret_id_is_refused(self):
        self.configure(Simulated.quick, "AKIDnobody")
        self.addCleanup(self.configure, Simulated.quick)
        self.assert_code("InvalidAccessKeyId", "list")
        self.refused("unknown SecretId", "coscmd list", "InvalidAccessKeyId, exit 255")

    def test_a_wrong_clock_is_refused(self):
        with Simulated.quick.clock(-16.5):
            self.assert_code("RequestTimeTooSkewed", "list")
        with Simulated.quick.clock(-14):
            self.output("list")
        result = "RequestTimeTooSkewed, exit 255; 14 minutes accepted"
        self.refused("clock 16.5 minutes ahead", "coscmd list, the server's clock set", result)

    def test_the_wrong_region_is_refused(self):
        self.assert_code("NoSuchBucket", "-b", BUCKET_ABROAD, "list")
        self.refused("bucket asked in another region", "coscmd -b … list", "NoSuchBucket, exit 255")

    def test_an_absent_object_is_told(self):
        for command in (("info", "absent"), ("download", "absent", "x")):
            self.assert_code("NoSuchResource", *command)
        call = "coscmd info KEY, coscmd download KEY FILE"
        self.refused("object that is not there", call, "NoSuchResource, exit 255")


# --- The documentation, and the run ---------------------------------------------------------------


def tables():
    """The tables as they stand in the documentation, by the name in their markers."""
    result = {}
    for table, (subject, outcome) in {
        WORKS: ("operation", "result"),
        REFUSED: ("what is wrong", "the client sees"),
    }.items():
        head = ("client", "version", subject, "command or call", outcome)
        lines = [head, ("---",) * len(head), *ROWS[table]]
        result[table] = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return result


def with_tables(text):
    """The documentation with the tables of this run."""
    for name, table in tables().items():
        marked = re.compile(rf"(<!-- {name}: [^\n]*-->\n).*?(\n<!-- end -->)", re.DOTALL)
        text, count = marked.subn(lambda found, table=table: found[1] + table + found[2], text)
        if count != 1:
            raise SystemExit(f"{DOCS} has no markers for the table `{name}`")
    return text


class InOrder(unittest.TestLoader):
    """Runs tests in the order of this file, which is that of the tables."""

    def getTestCaseNames(self, case):
        names = super().getTestCaseNames(case)
        return sorted(names, key=lambda name: getattr(case, name).__code__.co_firstlineno)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=os.environ.get("CVM_EXPORT_BINARY"), metavar="PATH")
    parser.add_argument("--write-docs", action="store_true", help="write the tables, not check them")
    parser.add_argument("-k", action="append", metavar="WORD", help="only tests with this in the name")
    options = parser.parse_args()
    if not options.binary:
        parser.error("--binary or CVM_EXPORT_BINARY must name a cvm-export")

    loader = InOrder()
    if options.k:
        loader.testNamePatterns = [f"*{word}*" for word in options.k]
    cases = (CvmSdk, CamSdk, StsSdk, CosSdk, Tccli, Coscmd)
    suite = unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in cases)

    # The SDKs log every refusal, and urllib3 every broken connection.
    logging.disable(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cvm-export-clients-"))
        folder = Path(folder)
        home = folder / "home"
        home.mkdir()
        # What the person has configured must not reach the clients, nor they the person's files.
        foreign = re.compile(r"(TENCENTCLOUD|TCCLI|TKE|COS)_|.*_PROXY$", re.IGNORECASE)
        for name in filter(foreign.match, list(os.environ)):
            del os.environ[name]
        os.environ["HOME"] = str(home)
        disk = folder / "disk.raw"
        disk.write_bytes(DISK)
        binary = str(Path(options.binary).resolve())
        Simulated.quick = Simulator(binary, "--image", f"{IMAGE}={disk}", "--speed", "1000")
        stack.callback(Simulated.quick.stop)
        Simulated.slow = Simulator(binary, "--speed", "1")
        stack.callback(Simulated.slow.stop)
        Simulated.relay = Relay(Simulated.quick, folder)
        stack.callback(Simulated.relay.stop)
        outcome = unittest.TextTestRunner(verbosity=1).run(suite)

    failed = len(outcome.failures) + len(outcome.errors)
    passed = outcome.testsRun - failed - len(outcome.skipped)
    rows = sum(map(len, ROWS.values()))
    print(f"clients: {passed} passed, {failed} failed; {rows} rows")
    if not outcome.wasSuccessful() or not outcome.testsRun:
        return 1
    if options.k:
        return 0
    present = DOCS.read_text()
    wanted = with_tables(present)
    if options.write_docs:
        DOCS.write_text(wanted)
    elif present != wanted:
        print(f"{DOCS.relative_to(ROOT)} does not tell what ran; see `tests/clients/run --write-docs`")
        return 1
    return 0


# Bytes that any misplaced range would show, the same in every run.
DISK = b"".join(hashlib.sha512(b"%d" % block).digest() for block in range(DISK_BYTES // 64))
DISK_CRC64 = crc64(DISK)

if __name__ == "__main__":
    assert crc64(b"123456789") == 0x995D_C9BB_DF19_39FA
    sys.exit(main())
