"""The CloudFormation templates: cfn-lint finds no fault, and moto creates, updates and deletes their stacks.

moto does not create `AWS::AutoScaling::ScalingPolicy` or any `AWS::ApplicationAutoScaling`. It does not keep attributes
of load balancers and target groups, check parameters or rules, or know SageMaker's Graviton types, and it updates only
resources that name a changed parameter themselves. Tests of these read the template instead.
"""

import ast
import base64
import os
import re
import shlex
import socket
import subprocess
import sys
import warnings
from dataclasses import fields
from functools import cache
from pathlib import Path

import boto3
import pytest
import yaml
from moto import mock_aws

import scanbook.serving
from helpers import documents
from scanbook.bundle import container
from scanbook.serving import server
from scanbook.serving.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse AWS")
FOLDER = Path(scanbook.serving.__file__).parent / "cloudformation"
FILES = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


class TemplateLoader(yaml.SafeLoader):
    """Reads a template with the short forms of functions, such as `!Ref`."""

    def construct_function(self, name: str, node: yaml.Node) -> dict:
        """Return the long form of a function."""
        if isinstance(node, yaml.ScalarNode):
            value = self.construct_scalar(node)
        else:
            value = self.construct_sequence(node, deep=True)
        if name == "GetAtt":
            value = value.split(".", 1)
        return {name if name == "Ref" else f"Fn::{name}": value}


TemplateLoader.add_multi_constructor("!", TemplateLoader.construct_function)
TEMPLATES = {name: yaml.load(path.read_text(), TemplateLoader) for name, path in FILES.items()}
REGION, ACCOUNT = "us-east-1", "123456789012"
REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
IMAGE = f"{REGISTRY}/team/scanbook:1.2.3"
DIGEST = f"{REGISTRY}/scanbook@sha256:{'0123456789abcdef' * 4}"
CERTIFICATE = f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/0123-abcd"
NOT_IN_MOTO = {
    "AWS::AutoScaling::ScalingPolicy",
    "AWS::ApplicationAutoScaling::ScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy",
}
EC2_TYPES = TEMPLATES["ec2"]["Parameters"]["InstanceType"]["AllowedValues"]
SAGEMAKER_TYPES = ("ml.m4.xlarge", "ml.m5.xlarge", "ml.m6g.xlarge", "ml.c7g.xlarge")


@cache
def client(service: str):
    """Return the client of a service; making one takes a while, because it reads the service's description."""
    return boto3.client(service, REGION)


@pytest.fixture
def aws(monkeypatch):
    """A function that returns the client of a service in an empty account of moto."""
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # thousands of images, which no test uses
    with mock_aws():
        yield client


@pytest.fixture
def network(aws):
    ec2 = aws("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=f"{REGION}{zone}")["Subnet"][
            "SubnetId"
        ]
        for number, zone in enumerate("abab")
    ]
    return {
        "ImageUri": IMAGE,
        "Vpc": vpc,
        "LoadBalancerSubnets": ",".join(subnets[:2]),
        "InstanceSubnets": ",".join(subnets[2:]),
        "AllowedCidr": "203.0.113.0/24",
    }


def deploy(aws, name: str, values: dict, update: bool = False) -> dict[str, str]:
    """Create or update a stack and return the physical ids of its resources by logical id."""
    cloudformation = aws("cloudformation")
    change = cloudformation.update_stack if update else cloudformation.create_stack
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        change(
            StackName=f"scanbook-{name}",
            TemplateBody=FILES[name].read_text(),
            Parameters=[{"ParameterKey": key, "ParameterValue": str(value)} for key, value in values.items()],
            Capabilities=["CAPABILITY_IAM"],
        )
    missing = {kind for message in messages for kind in re.findall(r"parse (AWS::\S+) but", str(message.message))}
    assert missing <= NOT_IN_MOTO
    [stack] = cloudformation.describe_stacks(StackName=f"scanbook-{name}")["Stacks"]
    assert stack["StackStatus"] == ("UPDATE_COMPLETE" if update else "CREATE_COMPLETE")
    resources = cloudformation.describe_stack_resources(StackName=f"scanbook-{name}")["StackResources"]
    return {row["LogicalResourceId"]: row["PhysicalResourceId"] for row in resources if "PhysicalResourceId" in row}


def outputs(aws, name: str) -> dict[str, str]:
    [stack] = aws("cloudformation").describe_stacks(StackName=f"scanbook-{name}")["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def refused(name: str, values: dict) -> set[str]:
    """Return the parameters that CloudFormation would refuse: unknown, missing, or not allowed by the template."""
    parameters = TEMPLATES[name]["Parameters"]
    required = {key for key, rules in parameters.items() if "Default" not in rules}
    bad = set(values) - set(parameters) | required - set(values)
    for key in set(values) & set(parameters):
        rules, value = parameters[key], str(values[key])
        if "AllowedValues" in rules and value not in map(str, rules["AllowedValues"]):
            bad.add(key)
        if "AllowedPattern" in rules and not re.fullmatch(rules["AllowedPattern"], value):
            bad.add(key)
        if rules["Type"] == "Number" and not (
            re.fullmatch(r"\d+", value)
            and int(rules.get("MinValue", 0)) <= int(value) <= int(rules.get("MaxValue", 10**9))
        ):
            bad.add(key)
    return bad


def policies(aws, role: str) -> dict[str, list[dict]]:
    """Return the statements of a role's policies by name."""
    iam = aws("iam")
    assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    documents = {name: iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names}
    # moto gives a document back as Python writes it, and a statement of no value as None
    return {name: list(filter(None, ast.literal_eval(text)["Statement"])) for name, text in documents.items()}


# --- both


@pytest.mark.slow  # cfn-lint takes seconds to import
def test_cfn_lint_finds_no_fault_without_a_network(monkeypatch, tmp_path):
    from cfnlint.api import lint_file
    from cfnlint.config import ManualArgs

    def connect(*_args):
        raise AssertionError("cfn-lint connected to the network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    arguments = ManualArgs(regions=["us-east-1", "eu-west-1"])
    for path in FILES.values():
        matches = lint_file(path, arguments)
        assert [f"{match.linenumber}: {match.rule.id} {match.message}" for match in matches] == []
    broken = tmp_path / "broken.yaml"
    broken.write_text(FILES["sagemaker"].read_text().replace("PrimaryContainer:", "FirstContainer:"))
    assert any("FirstContainer" in match.message for match in lint_file(broken, arguments))


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_policy_allows_more_than_it_needs(name):
    unlimited = set()
    for resource in TEMPLATES[name]["Resources"].values():
        for policy in resource["Properties"].get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                statement = statement.get("Fn::If", [None, statement])[1]  # noqa: PLW2901  the condition aside
                actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
                assert not [action for action in actions if "*" in action]
                if statement["Resource"] == "*":
                    unlimited |= set(actions)
        assert "ManagedPolicyArns" not in resource["Properties"]
    # these know no resources
    channels = {f"ssmmessages:{act}{kind}Channel" for act in ("Create", "Open") for kind in ("Control", "Data")}
    assert (
        unlimited
        <= {"ecr:GetAuthorizationToken", "cloudwatch:PutMetricData", "ssm:UpdateInstanceInformation"} | channels
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_documented_command_gives_what_the_template_asks_for(name):
    document = "docs/how-to/deploy.md"
    [command] = [text for text in documents.commands(document) if f"--template-file cloudformation/{name}.yaml" in text]
    overrides = dict(word.split("=", 1) for word in shlex.split(command.partition("--parameter-overrides")[2]))
    values = {"ImageUri": IMAGE, "CertificateArn": CERTIFICATE}  # a variable and "…" there
    assert refused(name, overrides | {key: value for key, value in values.items() if key in overrides}) == set()
    assert all(f"`SCANBOOK_{field.name.upper()}`" in documents.text(document) for field in fields(Settings))


@pytest.mark.parametrize("name", TEMPLATES)
def test_variables_are_those_of_the_service(name):
    known = {f"SCANBOOK_{field.name.upper()}" for field in fields(Settings)}
    named = set(re.findall(r"SCANBOOK_[A-Z_]+", FILES[name].read_text()))
    assert named and named <= known


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(
    "image",
    [
        "scanbook:latest",
        f"{REGISTRY}/scanbook",
        f"{REGISTRY}/scanbook:1; reboot",
        f"{REGISTRY}/scanbook:$(id)",
        f"{REGISTRY}/scanbook:1\nreboot",
        f"{REGISTRY}.example.org/scanbook:1",
        f"{REGISTRY}/scanbook@sha256:12",
    ],
)
def test_nothing_but_an_image_of_ecr_is_taken(name, image):
    assert "ImageUri" in refused(name, {"ImageUri": image})


# --- EC2


def test_what_the_ec2_template_takes_and_refuses(network):
    assert refused("ec2", network) == set()
    assert (
        refused("ec2", network | {"ImageUri": DIGEST, "CertificateArn": CERTIFICATE, "InstanceType": "m6g.xlarge"})
        == set()
    )
    # who may reach the service is asked for, not assumed
    assert refused("ec2", {"ImageUri": IMAGE}) == {"Vpc", "LoadBalancerSubnets", "InstanceSubnets", "AllowedCidr"}
    for key, value in {
        "InstanceType": "t2.nano",
        "Scheme": "public",
        "AllowedCidr": "anyone",
        "CertificateArn": "my certificate",
        "Workers": 0,
        "MinSize": 0,
        "MaxSize": 1,
        "LogDays": 2,
        "AmiX86": TEMPLATES["ec2"]["Parameters"]["AmiArm"]["Default"],
        "KeyName": "mine",
    }.items():
        assert refused("ec2", network | {key: value}) == {key}


def test_the_whole_internet_needs_a_certificate():
    [rule] = TEMPLATES["ec2"]["Rules"].values()
    assert rule["RuleCondition"] == {"Fn::Equals": [{"Ref": "CertificateArn"}, ""]}
    [assertion] = rule["Assertions"]
    assert assertion["Assert"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "AllowedCidr"}, "0.0.0.0/0"]}]}


def test_another_type_is_an_update_to_the_image_of_its_architecture(aws, network):
    ec2, images, scripts, balancers = aws("ec2"), set(), set(), set()
    for number, kind in enumerate(EC2_TYPES):
        resources = deploy(aws, "ec2", network | {"InstanceType": kind}, update=number > 0)
        machine = launched(aws, resources)
        [facts] = ec2.describe_instance_types(InstanceTypes=[kind])["InstanceTypes"]
        [architecture] = {"x86_64", "arm64"} & set(facts["ProcessorInfo"]["SupportedArchitectures"])
        name = f"/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{architecture}"
        assert machine["InstanceType"] == kind
        assert machine["ImageId"] == aws("ssm").get_parameter(Name=name)["Parameter"]["Value"]
        images.add(machine["ImageId"])
        scripts.add(machine["UserData"])
        balancers.add(resources["LoadBalancer"])
    assert len(images) == 2 and len(scripts) == len(balancers) == 1

    aws("cloudformation").delete_stack(StackName="scanbook-ec2")
    assert aws("cloudformation").describe_stacks()["Stacks"] == []
    assert aws("elbv2").describe_load_balancers()["LoadBalancers"] == []
    assert aws("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"] == []
    assert aws("ec2").describe_launch_templates()["LaunchTemplates"] == []
    assert aws("iam").list_roles()["Roles"] == [] and aws("logs").describe_log_groups()["logGroups"] == []


def launched(aws, made: dict[str, str]) -> dict:
    """The newest version of the launch template."""
    [version] = aws("ec2").describe_launch_template_versions(LaunchTemplateId=made["Machine"], Versions=["$Latest"])[
        "LaunchTemplateVersions"
    ]
    return version["LaunchTemplateData"]


def test_the_stack_on_ec2(aws, network):
    resources = deploy(aws, "ec2", network | {"MinSize": 2, "MaxSize": 4})
    elb, ec2 = aws("elbv2"), aws("ec2")
    [balancer] = elb.describe_load_balancers()["LoadBalancers"]
    assert balancer["Scheme"] == "internet-facing" and len(balancer["AvailabilityZones"]) == 2
    assert outputs(aws, "ec2")["Url"] == f"http://{balancer['DNSName']}"

    [target] = elb.describe_target_groups()["TargetGroups"]
    assert (target["HealthCheckPath"], target["HealthCheckProtocol"], target["Port"]) == (
        "/readyz",
        "HTTP",
        container.PORT,
    )
    assert target["Matcher"]["HttpCode"] == "200"
    [listener] = elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
    assert (listener["Port"], listener["Protocol"]) == (80, "HTTP")
    assert listener["DefaultActions"][0]["TargetGroupArn"] == target["TargetGroupArn"]

    groups = {group["GroupId"]: group for group in ec2.describe_security_groups()["SecurityGroups"]}
    front, back = groups[resources["LoadBalancerGroup"]], groups[resources["InstanceGroup"]]
    assert [(rule["FromPort"], rule["IpRanges"][0]["CidrIp"]) for rule in front["IpPermissions"]] == [
        (80, network["AllowedCidr"])
    ]
    [rule] = back["IpPermissions"]  # no ssh, and nobody but the load balancer
    assert (rule["FromPort"], rule["ToPort"]) == (container.PORT, container.PORT)
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [front["GroupId"]] and not rule["IpRanges"]

    machine = launched(aws, resources)
    assert machine["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    assert [disk["Ebs"]["Encrypted"] for disk in machine["BlockDeviceMappings"]] == [True]
    assert "KeyName" not in machine
    [group] = aws("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert (group["MinSize"], group["MaxSize"], len(group["Instances"])) == (2, 4, 2)
    assert group["TargetGroupARNs"] == [resources["Targets"]] and group["HealthCheckType"] == "EC2"
    assert sorted(group["VPCZoneIdentifier"].split(",")) == sorted(network["InstanceSubnets"].split(","))

    statements = policies(aws, resources["Role"])
    assert statements["pull"][1]["Resource"] == f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/team/scanbook"
    assert resources["Log"] in statements["log"][0]["Resource"]
    assert aws("logs").describe_log_groups()["logGroups"][0]["retentionInDays"] == 30


def test_a_certificate_brings_https_and_a_redirect(aws, network):
    certificate = aws("acm").request_certificate(DomainName="scanbook.example.org")["CertificateArn"]
    made = deploy(aws, "ec2", network | {"CertificateArn": certificate, "Scheme": "internal"})
    elb = aws("elbv2")
    [balancer] = elb.describe_load_balancers()["LoadBalancers"]
    assert balancer["Scheme"] == "internal" and outputs(aws, "ec2")["Url"].startswith("https://")
    listeners = {
        listener["Port"]: listener
        for listener in elb.describe_listeners(LoadBalancerArn=made["LoadBalancer"])["Listeners"]
    }
    assert listeners[80]["DefaultActions"][0]["Type"] == "redirect"
    assert listeners[443]["Certificates"][0]["CertificateArn"] == certificate and "TLS13" in listeners[443]["SslPolicy"]
    assert listeners[443]["DefaultActions"][0]["TargetGroupArn"] == made["Targets"]
    [front] = aws("ec2").describe_security_groups(GroupIds=[made["LoadBalancerGroup"]])["SecurityGroups"]
    assert sorted(rule["FromPort"] for rule in front["IpPermissions"]) == [80, 443]


def test_what_moto_does_not_keep_of_the_ec2_template():
    resources = TEMPLATES["ec2"]["Resources"]
    balancer = attributes(resources["LoadBalancer"]["Properties"]["LoadBalancerAttributes"])
    assert balancer["routing.http.xff_header_processing.mode"] == "append"  # one more address: one trusted proxy
    assert balancer["routing.http.drop_invalid_header_fields.enabled"] == "true"
    update = resources["Machines"]["UpdatePolicy"]["AutoScalingRollingUpdate"]
    assert update["WaitOnResourceSignals"] and update["MinInstancesInService"] == {"Ref": "MinSize"}
    # a new version of the launch template is a change of the group, which rolls it out
    assert resources["Machines"]["Properties"]["LaunchTemplate"]["Version"] == {
        "Fn::GetAtt": ["Machine", "LatestVersionNumber"]
    }
    assert resources["Scaling"]["Properties"]["AutoScalingGroupName"] == {"Ref": "Machines"}


def test_what_is_started_finishes_before_it_is_ended():
    resources = TEMPLATES["ec2"]["Resources"]
    service = server._Application(lambda: None, Settings()).cfg
    balancer = attributes(resources["LoadBalancer"]["Properties"]["LoadBalancerAttributes"])
    target = attributes(resources["Targets"]["Properties"]["TargetGroupAttributes"])
    script = resources["Machine"]["Properties"]["LaunchTemplateData"]["UserData"]["Fn::Base64"]["Fn::Sub"][0]
    assert int(re.search(r"--stop-timeout (\d+)", script)[1]) > service.graceful_timeout
    assert int(target["deregistration_delay.timeout_seconds"]) > service.graceful_timeout
    # the balancer closes an idle connection first: the service would close it just as a request comes
    assert int(balancer["idle_timeout.timeout_seconds"]) < service.keepalive


def attributes(listed: list[dict]) -> dict[str, str]:
    return {attribute["Key"]: attribute["Value"] for attribute in listed}


STUB = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
case "$(basename "$0") $1" in $FAILS) exit 1;; esac
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the script reads /proc/meminfo")
def test_a_machine_starts_the_container_and_signals_it(aws, network, tmp_path):
    """The script of a new machine runs here, with commands that only record their arguments."""
    script = base64.b64decode(launched(aws, deploy(aws, "ec2", network))["UserData"]).decode()
    for name in ("dnf", "systemctl", "aws", "docker", "curl", "sleep", "cfn-signal"):
        (tmp_path / name).write_text(STUB)
        (tmp_path / name).chmod(0o755)

    def boot(fails: str) -> list[list[str]]:
        record = tmp_path / "calls"
        record.unlink(missing_ok=True)
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(record), "FAILS": fails}
        text = script.replace("/opt/aws/bin/cfn-signal", "cfn-signal").replace("{1..120}", "{1..3}")
        subprocess.run(["bash", "-c", text], env=environment, check=False, capture_output=True, timeout=30)
        return [shlex.split(line) for line in record.read_text().splitlines()]

    calls = boot(fails="none")
    [run] = [call for call in calls if call[:2] == ["docker", "run"]]
    assert run[-2:] == [IMAGE, "serve"]
    options = " ".join(run)
    for option in (
        *("--read-only", "--cap-drop ALL", "--security-opt no-new-privileges", "--restart always"),
        *("--env SCANBOOK_TRUSTED_PROXIES=1", "--env SCANBOOK_WORKERS=1", "--log-driver awslogs"),
        f"--publish {container.PORT}:{container.PORT}",
    ):
        assert f" {option} " in options
    assert int(run[run.index("--user") + 1].split(":")[0]) > 0
    memory = int(run[run.index("--memory") + 1].removesuffix("k"))
    whole = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1])
    assert memory == whole - 2**20
    # the login to the registry is gone before the service starts
    assert calls.index(["docker", "logout", REGISTRY]) < calls.index(run)
    assert calls[-1][:3] == ["cfn-signal", "--exit-code", "0"] and "Machines" in calls[-1]

    for fails in ("dnf install", "docker run", "curl --fail"):
        calls = boot(fails)
        assert calls[-1][:3] == ["cfn-signal", "--exit-code", "1"]
        assert fails != "dnf install" or not [call for call in calls if call[0] == "docker"]
    # the script tries a failing registry again
    assert len([call for call in boot("docker pull") if call[:2] == ["docker", "pull"]]) == 5


# --- SageMaker


@pytest.fixture
def graviton(monkeypatch):
    """moto refuses the newer of the study's types; the template's own list is what is tested."""
    from moto.sagemaker.models import FakeEndpointConfig

    validate_known = FakeEndpointConfig.validate_instance_type

    def validate(self, kind):
        if kind not in ("ml.m6g.xlarge", "ml.c7g.xlarge"):
            validate_known(self, kind)

    monkeypatch.setattr(FakeEndpointConfig, "validate_instance_type", validate)


def endpoint(aws) -> tuple[dict, dict, dict]:
    """Endpoint, configuration's only variant, and model."""
    sagemaker = aws("sagemaker")
    [configuration] = sagemaker.list_endpoint_configs()["EndpointConfigs"]
    description = sagemaker.describe_endpoint_config(EndpointConfigName=configuration["EndpointConfigName"])
    assert not description.get("DataCaptureConfig")
    [variant] = description["ProductionVariants"]
    [name] = [row["EndpointName"] for row in sagemaker.list_endpoints()["Endpoints"]]
    model = sagemaker.describe_model(ModelName=variant["ModelName"])
    return sagemaker.describe_endpoint(EndpointName=name), variant, model


def test_what_the_sagemaker_template_takes_and_refuses():
    assert tuple(TEMPLATES["sagemaker"]["Parameters"]["InstanceType"]["AllowedValues"]) == SAGEMAKER_TYPES
    base = {"ImageUri": IMAGE}
    role = f"arn:aws:iam::{ACCOUNT}:role/service/endpoint"
    assert refused("sagemaker", base | {"ModelDataUrl": "s3://models/a/b.tar.gz", "RoleArn": role}) == set()
    for key, value in {
        "InstanceType": "c7g.xlarge",
        "ModelDataUrl": "s3://models/*.tar.gz",
        "RoleArn": "admin",
        "InstanceCount": 0,
        "InvocationsPerInstance": -1,
        "Workers": 99,
        "DataCapture": "true",
    }.items():
        assert refused("sagemaker", base | {key: value}) == {key}
    assert refused("sagemaker", {}) == {"ImageUri"}


def test_an_endpoint_is_created_updated_to_each_type_and_deleted(aws, graviton):
    sagemaker, configurations = aws("sagemaker"), set()
    values = {"ImageUri": IMAGE, "Workers": 2, "InstanceCount": 3}
    for number, kind in enumerate(SAGEMAKER_TYPES):
        made = deploy(aws, "sagemaker", values | {"InstanceType": kind}, update=number > 0)
        _, variant, _ = endpoint(aws)
        assert (variant["InstanceType"], variant["InitialInstanceCount"]) == (kind, 3)
        configurations.add(sagemaker.list_endpoint_configs()["EndpointConfigs"][0]["EndpointConfigName"])
    # each has a new configuration, which the endpoint moves to on AWS
    assert len(configurations) == len(SAGEMAKER_TYPES)
    name = TEMPLATES["sagemaker"]["Resources"]["Endpoint"]["Properties"]["EndpointConfigName"]
    assert name == {"Fn::GetAtt": ["EndpointConfig", "EndpointConfigName"]}
    served, variant, model = endpoint(aws)
    assert (
        served["EndpointStatus"] == "InService" and outputs(aws, "sagemaker")["EndpointName"] == served["EndpointName"]
    )
    assert model["PrimaryContainer"]["Image"] == IMAGE and "ModelDataUrl" not in model["PrimaryContainer"]
    assert {key: str(value) for key, value in model["PrimaryContainer"]["Environment"].items()} == {
        "SCANBOOK_WORKERS": "2"
    }
    role = aws("iam").get_role(RoleName=made["Role"])["Role"]
    assert model["ExecutionRoleArn"] == role["Arn"]
    statements = policies(aws, made["Role"])
    assert set(statements) == {"read", "log"}
    assert (
        len(statements["read"]) == 2
        and statements["read"][1]["Resource"] == f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/team/scanbook"
    )
    # the container has no network
    assert TEMPLATES["sagemaker"]["Resources"]["Model"]["Properties"]["EnableNetworkIsolation"] is True

    aws("cloudformation").delete_stack(StackName="scanbook-sagemaker")
    assert sagemaker.list_endpoints()["Endpoints"] == [] and sagemaker.list_models()["Models"] == []
    assert sagemaker.list_endpoint_configs()["EndpointConfigs"] == [] and aws("iam").list_roles()["Roles"] == []


def test_an_endpoint_with_a_bundle_of_its_own_and_a_role_that_is_given(aws):
    document = '{"Version": "2012-10-17", "Statement": []}'
    role = aws("iam").create_role(RoleName="given", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    values = {"ImageUri": DIGEST, "InstanceType": "ml.m5.xlarge", "ModelDataUrl": "s3://models/skin/bundle.tar.gz"}
    made = deploy(aws, "sagemaker", values)
    _, pull, statement = policies(aws, made["Role"])["read"]
    assert (statement["Action"], statement["Resource"]) == ("s3:GetObject", "arn:aws:s3:::models/skin/bundle.tar.gz")
    assert pull["Resource"].endswith(":repository/scanbook")
    assert endpoint(aws)[2]["PrimaryContainer"]["ModelDataUrl"] == values["ModelDataUrl"]
    aws("cloudformation").delete_stack(StackName="scanbook-sagemaker")

    made = deploy(aws, "sagemaker", values | {"RoleArn": role})
    assert "Role" not in made and endpoint(aws)[2]["ExecutionRoleArn"] == role


def test_auto_scaling_is_an_option(aws):
    values = {"ImageUri": IMAGE, "InstanceType": "ml.m5.xlarge"}
    resources = TEMPLATES["sagemaker"]["Resources"]
    assert resources["ScalableTarget"]["Condition"] == resources["Scaling"]["Condition"] == "Scales"
    target = resources["ScalableTarget"]["Properties"]
    [variant] = resources["EndpointConfig"]["Properties"]["ProductionVariants"]
    assert target["ResourceId"] == {"Fn::Sub": f"endpoint/${{Endpoint.EndpointName}}/variant/{variant['VariantName']}"}
    with pytest.warns(UserWarning, match="ScalableTarget"):  # moto says that it was asked for, which is all it can
        aws("cloudformation").create_stack(
            StackName="scales",
            TemplateBody=FILES["sagemaker"].read_text(),
            Parameters=[
                {"ParameterKey": key, "ParameterValue": value}
                for key, value in (values | {"InvocationsPerInstance": "600"}).items()
            ],
            Capabilities=["CAPABILITY_IAM"],
        )
