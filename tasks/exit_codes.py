"""From an exception to an exit code: 2 where the person at the keyboard can mend the input, 3 for a no, 4 for not yet, 1 for the rest."""

from __future__ import annotations

BAD_INPUT = {
    "ResultsInvalid", "SuiteTooSmall", "NoiseUnmeasured", "ChangeUnread", "ReportInvalid", "MarginBelowNoise",
    "NoChampion", "RecordUnusable", "StateTooNew", "SettingsInvalid", "StateShared", "ExportInvalid", "ModelTaken",
    "UsageError", "BadParameter", "NoSuchOption", "MissingParameter", "BadInput", "SpecInvalid", "DatasetRefused", "BaseModelRefused",
    "TrainingRefused", "SuiteInvalid", "PromptInvalid", "CorpusError", "UnknownGpu", "FlagsRefused", "ConfigInvalid", "HeaderInvalid",
    "EngineBusy", "StackTaken", "ReleaseUnderWay", "FolderTaken", "NameRefused", "ModelRefused", "AdapterRefused", "StackDown", "FingerprintMismatch",
    "UnsupportedModel", "UnknownEngine", "CatalogueInvalid", "ModelUnreadable", "ManifestInvalid", "QuantityInvalid", "ArgsInvalid",
    "ContractUnread", "ResidualsInvalid", "ReferenceInvalid", "CredentialsInvalid", "ShellMissing", "DestinationTaken", "ImageMissing",
    "AdapterMissing", "LayoutInvalid", "RolloutUnderWay", "NoRollout", "KeyInvalid", "KeyTaken", "PredicateInvalid", "DocumentInvalid",
    "NotIndexed", "EmbedderMismatch", "EmbedderUnavailable", "IndexBusy", "ContextTooSmall", "ModelUnnamed", "TenantInvalid", "AddressTaken",
    "PromotionBusy", "NoSuchVersion", "NothingToUndo", "KeyRefused", "NoSuchRequest", "DatasetUnknown", "EndpointInvalid",
    "CorpusRepositoryError", "DocumentsSuiteInvalid", "DesiredInvalid", "PlatformInvalid", "VersionNotDeliverable", "OutputTaken", "ValuesInvalid",
    "ClusterUnreachable", "ClusterRefused", "PrometheusUnread", "RemoteRefused", "DeliveryUnset", "TargetInvalid", "RecordUnread",
    "TrainingUnset", "ImageUnpinned",
    "InputInvalid", "YamlRefused", "DurationInvalid", "ProbeFailed", "BasesDiffer",
}  # fmt: skip
NO = {"ChangeRefused", "GateRefused", "RolloutUndone", "DoesNotFit", "ContractBroken", "DigestMismatch", "LayerRefused", "LicenceNotAllowed",
      "AliasMoved", "VerificationFailed", "ContentMismatch", "EvidenceRefused", "DrillFailed", "StrategyMissing",
      "NotTraced", "ProbeRefused", "ApprovalRefused", "ChainIncoherent", "NotSchedulable", "Blocked", "DeliveryFailed",
      "QueueTooSmall"}  # fmt: skip

OPEN = {"ApprovalPending"}


def code_of(error: BaseException) -> int:
    """By the names of the class and its bases, so that no heavy module is imported to answer."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & BAD_INPUT:
        return 2
    if names & OPEN:
        return 4
    return 3 if names & NO else 1
