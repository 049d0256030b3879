"""Fills moto with three accounts that have Lambda functions in VPCs, and prints what is where as JSON.

    moto-world.py http://127.0.0.1:PORT

moto makes no interfaces for functions, so they are made here as Lambda makes them: one for each pair of subnet and set of security
groups, described by the function that came first.
"""
import io
import json
import sys
import uuid
import zipfile

import boto3

ENDPOINT = sys.argv[1]
REGION = "us-east-1"
ACCOUNTS = ["111111111111", "222222222222", "333333333333"]


def client(service, account, region=REGION):
    """A client that acts in `account`: moto tells accounts apart by the key that its STS gave out."""
    base = dict(endpoint_url=ENDPOINT, region_name=region)
    sts = boto3.client("sts", aws_access_key_id="test", aws_secret_access_key="test", **base)
    given = sts.assume_role(RoleArn=f"arn:aws:iam::{account}:role/flowtrail-read", RoleSessionName="tests")["Credentials"]
    return boto3.client(service, aws_access_key_id=given["AccessKeyId"], aws_secret_access_key=given["SecretAccessKey"],
                        aws_session_token=given["SessionToken"], **base)


def code():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("main.py", "def handler(event, context): return 1\n")
    return packed.getvalue()


def main():
    boto3.client("sts", endpoint_url=ENDPOINT, region_name=REGION, aws_access_key_id="test", aws_secret_access_key="test").get_caller_identity()
    interfaces = []
    for account in ACCOUNTS:
        ec2, iam, functions = client("ec2", account), client("iam", account), client("lambda", account)
        trust = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}]})
        run = uuid.uuid4().hex[:8]      # the script may run more than once against one moto
        role = iam.create_role(RoleName=f"functions-{run}", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = [ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{n}.0/24")["Subnet"]["SubnetId"] for n in range(2)]
        groups = [ec2.create_security_group(GroupName=f"g{n}-{run}", Description="tests", VpcId=vpc)["GroupId"] for n in range(3)]
        # (functions, subnet, groups): one alone, two that share an interface.
        for number, (names, subnet, chosen) in enumerate([(["orders"], 0, [0]), (["billing", "reports"], 1, [1, 2])]):
            arns = []
            for name in names:
                made = functions.create_function(FunctionName=f"{name}-{run}", Runtime="python3.12", Role=role, Handler="main.handler",
                                                 Code={"ZipFile": code()}, VpcConfig={"SubnetIds": [subnets[subnet]], "SecurityGroupIds": [groups[g] for g in chosen]})
                arns.append(made["FunctionArn"])
            eni = ec2.create_network_interface(SubnetId=subnets[subnet], Groups=[groups[g] for g in chosen], PrivateIpAddress=f"10.0.{subnet}.{50 + number}",
                                               Description=f"AWS Lambda VPC ENI-{names[0]}-{run}-{uuid.uuid4()}")["NetworkInterface"]
            interfaces.append({"account": account, "eni": eni["NetworkInterfaceId"], "ip": eni["PrivateIpAddress"], "functions": arns})
        other = ec2.create_network_interface(SubnetId=subnets[0], Groups=[groups[0]], PrivateIpAddress="10.0.0.99", Description="RDSNetworkInterface")["NetworkInterface"]
        interfaces.append({"account": account, "eni": other["NetworkInterfaceId"], "ip": other["PrivateIpAddress"], "functions": []})
    print(json.dumps({"accounts": ACCOUNTS, "interfaces": interfaces}))


main()
